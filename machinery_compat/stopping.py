"""How a worker ends.

Asked to end (SIGTERM), it finishes what runs and gives everything else back at once, for other
workers. Asked twice, or to end now (SIGQUIT), it gives back what runs too. Celery alone does so
for processes only: its threads are waited for, and what runs in the main loop is made to fail.
"""

from __future__ import annotations

import logging
import os
import sys
from _thread import start_new_thread
from collections import deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from signal import SIGTERM, raise_signal
from time import monotonic
from typing import Any

from celery import signals
from celery.concurrency import solo, thread
from celery.exceptions import TaskRevokedError, WorkerTerminate
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.common import ignore_errors

from machinery_compat.backends.base import Backend
from machinery_compat.transport.base import TaskChannel
from machinery_compat.wire.state import FAILURE, SUCCESS

__all__ = ["StoppingConsumer"]

logger = get_logger(__name__)

#: While threads finish, heartbeats and acknowledgements are sent this often, in seconds.
DRAIN_PERIOD = 0.5
#: The longest time for which a process may be silent about a task that it has been given, in seconds.
BEGIN_TIMEOUT = 5.0
#: The error of a task that was acknowledged when it began, and cannot go back to its queue.
CANCELLED = "the worker was told to end at once while the task was running, and acks_late is off"


class StoppingConsumer(CeleryConsumer):  # type: ignore[misc]
    """A Celery consumer that keeps nothing from other workers when it ends."""

    def __init__(self, on_task_request: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(on_task_request, *args, **kwargs)
        self._given_back = self._asked_to_stop = False
        #: What the threads of the pool have been given and not finished.
        self._futures: dict[Any, Future[Any]] = {}
        #: The task that runs in the main loop.
        self._running_here: Any = None
        #: What came when nothing was to begin any more.
        self._late: list[Any] = []
        self._acks: deque[tuple[Any, tuple[Any, ...], dict[str, Any]]] = deque()
        self._has_threads = isinstance(self.pool, thread.TaskPool)
        if self._has_threads:
            self.on_task_request = self._run_in_thread
        elif isinstance(self.pool, solo.TaskPool):
            self._run = on_task_request
            self.on_task_request = self._run_here
        signals.worker_shutting_down.connect(self.on_shutting_down, sender=self.hostname)

    # -- running

    def _run_in_thread(self, request: Any) -> None:
        """Celery's own way to give a request to the pool, except that it can be taken back."""
        if self._given_back:
            self._late.append(request)
            return
        try:
            future: Future[Any] = request.execute_using_pool(self.pool).f
        except TaskRevokedError:
            return
        self._futures[request] = future
        future.add_done_callback(lambda _: self._futures.pop(request, None))

    def _run_here(self, request: Any) -> None:
        # What arrives while a task runs does so because a signal's handler cancels the consumer.
        if self._running_here is not None or self._given_back or _is_ending():
            self._late.append(request)
            return
        self._running_here = request
        try:
            self._run(request)
        finally:
            self._running_here = None

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._has_threads or self.hub is None:
            return super().call_soon_ack(p, *args, **kwargs)
        # Kept here, since nothing runs the event loop while the last threads finish.
        self._acks.append((p, args, kwargs))
        return self.hub.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        while self._acks:
            acknowledge, args, kwargs = self._acks.popleft()
            acknowledge(*args, **kwargs)

    # -- ending when what runs is finished

    def on_shutting_down(self, sig: str, how: str, **kwargs: Any) -> None:
        """Called by the signal's handler, in the main thread, in the middle of whatever it does."""
        if how != "Warm":
            return
        if sig == "SIGTERM":
            # Imported by whoever has signal handlers.
            from celery.apps.worker import install_worker_term_hard_handler

            install_worker_term_hard_handler(self.controller, sig="SIGTERM")
            if self._asked_to_stop:
                # The second one came while the first was being handled, which still led here.
                raise_signal(SIGTERM)
                return
            self._asked_to_stop = True
        if self._running_here is not None:
            # The loop goes on when the task has ended; others need not wait for that.
            self._give_back()
        elif self.hub is not None:
            # The handler runs in the thread of the event loop, where a call alone wakes nobody.
            start_new_thread(self.hub.call_soon, (_nothing,))

    def stop(self) -> None:
        """Gives back what has not begun, before Celery waits for the running tasks.

        Celery alone would hold it until the last of them has ended.
        """
        self._give_back()
        if getattr(self.pool, "uses_semaphore", False) and not state.should_terminate:
            self._let_processes_begin()
        super().stop()
        if self._has_threads and not state.should_terminate:
            self._finish_threads()

    def _give_back(self) -> None:
        consumer = self.task_consumer
        if consumer is None:
            return
        self._given_back = True
        # Nothing new may come, least of all what is given back.
        ignore_errors(self, consumer.cancel)
        if isinstance(consumer.channel, TaskChannel):
            ignore_errors(self, consumer.channel.give_back_undelivered)
        # Each goes to the head of its queue: the last one first, so that their order stays.
        for request in reversed(_in_order(self._not_begun(), consumer.channel)):
            request.message.reject_log_error(logger, self.connection_errors, requeue=True)
            request.acknowledged = True

    def _not_begun(self) -> Iterable[Any]:
        """The requests that nobody has begun to run, and nobody will."""
        late, self._late = self._late, []
        yield from late
        if self._has_threads:
            yield from [request for request, future in list(self._futures.items()) if future.cancel()]
        elif self._running_here is None:
            yield from [request for request in list(state.reserved_requests) if request._apply_result is None]
        for bucket in self.task_buckets.values():
            if bucket:
                yield from [request for request, _ in bucket.contents]
                bucket.clear_pending()

    def _let_processes_begin(self) -> None:
        """Waits until the pool's processes tell that they have begun what was written to them.

        Celery forgets what they have not told of when it closes: they would run it, and it would
        go back to its queue too.
        """
        if self.hub is None or self.task_consumer is None:
            return
        if self.controller.semaphore is not None:
            # Or the places that get free would go to what was given back.
            self.controller.semaphore.clear()
        deadline = monotonic() + BEGIN_TIMEOUT
        while monotonic() < deadline and any(_is_written(request) for request in list(state.reserved_requests)):
            ignore_errors(self, self.hub.run_once)

    def _finish_threads(self) -> None:
        """Waits for the running tasks; each is acknowledged when it ends, not with the last one."""
        while futures := list(self._futures.values()):
            wait(futures, timeout=DRAIN_PERIOD, return_when=FIRST_COMPLETED)
            self._acknowledge()
            if self.hub is not None:
                self.hub.fire_timers()
        self._acknowledge()

    # -- ending at once

    def cancel_active_requests(self) -> None:
        """Ends the running tasks, so that other workers run them.

        A task in the main loop is left by an exception. A thread cannot be ended: there the
        process ends, as soon as everything is given back.

        Raises:
            WorkerTerminate: in the task that runs in the main loop.
        """
        # Celery says so to its signal handler, and then ends with 0.
        self.controller.exitcode = EX_FAILURE
        if self._running_here is not None:
            self._fail_acknowledged([self._running_here])
            raise WorkerTerminate(EX_FAILURE)
        if self._has_threads and self._futures:
            self._end_process()
        active = list(state.active_requests)
        super().cancel_active_requests()
        self._fail_acknowledged(request for request in active if request._already_cancelled)

    def _end_process(self) -> None:
        running = [request for request, future in list(self._futures.items()) if not future.cancel()]
        self._acknowledge()
        self._fail_acknowledged(running)
        logger.warning("ends at once; given back: %s", ", ".join(f"{one.name}[{one.id}]" for one in running))
        # With its connection everything goes back that is not acknowledged.
        if self.connection is not None:
            ignore_errors(self.connection, self.connection.close)
        if self.controller.pidlock is not None:
            self.controller.pidlock.release()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Python would wait for the threads.
        os._exit(EX_FAILURE)

    def _fail_acknowledged(self, cancelled: Iterable[Any]) -> None:
        """Fails the cancelled tasks that nobody will run again; Celery would leave them STARTED for ever."""
        backend = self.app.backend
        for request in cancelled:
            signature = getattr(request.message, "signature", None)
            if request.task.acks_late or signature is None or not isinstance(backend, Backend):
                continue
            known = backend.task_state(request.id)
            if known is None or known.state not in (SUCCESS, FAILURE):
                backend.fail_unrunnable(signature, CANCELLED)


def _is_written(request: Any) -> bool:
    """Whether a request has been given to a process that has not told yet that it begins."""
    result = request._apply_result
    return result is not None and result() is not None and request.time_start is None and not request.acknowledged


def _is_ending() -> bool:
    # Celery reads False as None.
    return any(wish is not None and wish is not False for wish in (state.should_stop, state.should_terminate))


def _in_order(requests: Iterable[Any], channel: Any) -> list[Any]:
    """The requests that still belong to a channel and can go back, in the order of their arrival."""
    waiting = {
        request.message.delivery_tag: request
        for request in requests
        if request.message.channel is channel and not request.acknowledged
    }
    # Kombu's own channels know the order; RabbitMQ keeps it by itself.
    arrived = list(channel.qos._delivered) if hasattr(channel, "qos") else sorted(waiting)
    return [waiting[tag] for tag in arrived if tag in waiting]


def _nothing() -> None:
    """Wakes the event loop."""
