"""Machinery's Worker: Celery's own worker under Machinery's names."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import WorkerShutdown
from celery.worker import state
from kombu.asynchronous import set_event_loop

from machinery_compat import errors
from machinery_compat.transport.base import current_signature
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from machinery_compat.server import Server

__all__ = ["Worker"]

#: Seconds for which ``quit`` waits for a worker that runs in the background.
QUIT_TIMEOUT = 60.0
#: Seconds for which ``launch_async`` waits until the worker takes tasks.
START_TIMEOUT = 10.0
POOLS = {"threads": "machinery_compat.pool:ThreadPool"}

logger = logging.getLogger("machinery_compat.worker")


#: The workers that run in this process now.
_running: set[Worker] = set()
_building = threading.Lock()


class Worker:
    """Takes tasks from one queue and runs them; mirrors Go's ``Worker``.

    Args:
        server: where its tasks are registered.
        consumer_tag: its name.
        concurrency: how many tasks run at once; 0 leaves it to Celery (one a CPU).
        queue: the queue, by default the server's.
        pool: Celery's pool. ``threads`` is what goroutines come closest to; ``prefork`` isolates
            tasks in processes of their own.
    """

    def __init__(
        self, server: Server, consumer_tag: str, concurrency: int = 0, queue: str = "", pool: str = "threads"
    ) -> None:
        self.server = server
        self.consumer_tag = consumer_tag
        self.concurrency = concurrency
        self.queue = queue or server.config.default_queue
        self.pool = pool
        self._error_handler: Callable[[Exception], None] | None = None
        self._pre_task: Callable[[Signature], None] | None = None
        self._post_task: Callable[[Signature], None] | None = None
        self._controller: Any = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._quit = threading.Event()
        self._failure: BaseException | None = None

    # -- running

    @property
    def _is_eager(self) -> bool:
        return bool(self.server.app.amqp.is_eager())

    def launch(self) -> None:
        """Runs until a signal ends it: the first one lets running tasks finish; mirrors Go's Launch.

        Raises:
            MachineryError: the worker ended with a failure.
        """
        kind = self.server.app.WorkController if self.server.config.no_unix_signals else self.server.app.Worker
        self._run(kind)
        if self._is_eager:
            return
        # Celery ends with a failure's code after SIGINT too, which is as good an end as SIGTERM here.
        asked = state.should_stop is not None and state.should_terminate is None
        if self._controller.exitcode and not asked:
            raise errors.MachineryError(
                f"the worker {self.consumer_tag} ended with exit code {self._controller.exitcode}"
            )

    def launch_async(self, failures: queue.Queue[BaseException] | None = None) -> threading.Thread:
        """Runs in a thread of this process, without signal handlers; mirrors Go's LaunchAsync.

        Args:
            failures: gets what ended the worker, when it was not :meth:`quit`.

        Returns:
            the thread; the worker takes tasks when this returns, or goes on trying to reach a
            broker that is down.

        Raises:
            MachineryError: it did not start.
        """

        def run() -> None:
            try:
                self._run(self.server.app.WorkController)
            except BaseException as exc:
                self._failure = exc
                if failures is None:
                    logger.exception("the worker %s ended", self.consumer_tag)
                else:
                    failures.put(exc)
            finally:
                self._ready.set()

        self._ready.clear()
        self._quit.clear()
        self._failure = None
        self._thread = threading.Thread(target=run, name=f"machinery-worker-{self.consumer_tag}", daemon=True)
        self._thread.start()
        self._ready.wait(START_TIMEOUT)
        if self._failure is not None:
            raise errors.MachineryError(
                f"the worker {self.consumer_tag} did not start: {self._failure}"
            ) from self._failure
        return self._thread

    def quit(self) -> None:
        """Ends the worker when its running tasks are done; mirrors Go's Quit."""
        self._quit.set()
        if not self._is_eager:
            self._ask_to_stop()
        try:
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join(QUIT_TIMEOUT)
        finally:
            if not self._is_eager and self._thread is not None and not self._thread.is_alive():
                state.should_stop = None

    def _ask_to_stop(self) -> None:
        hub = getattr(getattr(self._controller, "consumer", None), "hub", None)
        # Celery keeps this wish once for the whole process: other workers there must not see it.
        alone = _running <= {self}
        if alone or hub is None:
            state.should_stop = 0
            if hub is not None:
                hub.call_soon(_look_up)
        else:
            hub.call_soon(_shut_down)

    def _run(self, kind: Any) -> None:
        receivers = self._connect()
        self.server.app.set_current()
        try:
            if self._is_eager:
                # Tasks run where they are sent; a worker there is no more than its handlers.
                self._ready.set()
                self._quit.wait()
                return
            with _building:
                # Celery would let all workers of a process share one event loop, a closed one too.
                set_event_loop(None)
                self._controller = kind(
                    hostname=f"{self.consumer_tag}@{_host()}",
                    concurrency=self.concurrency or None,
                    queues=[self.queue],
                    pool_cls=POOLS.get(self.pool, self.pool),
                    quiet=True,
                    loglevel="INFO",
                    redirect_stdouts=False,
                    ready_callback=lambda consumer: self._ready.set(),
                )
            _running.add(self)
            self._controller.start()
        finally:
            _running.discard(self)
            for signal, receiver in receivers:
                signal.disconnect(receiver)

    # -- handlers

    def set_error_handler(self, handler: Callable[[Exception], None]) -> None:
        """Calls ``handler(exception)`` when a task has failed for good; mirrors Go's SetErrorHandler."""
        self._error_handler = handler

    def set_pre_task_handler(self, handler: Callable[[Signature], None]) -> None:
        """Calls ``handler(signature)`` before a task runs; mirrors Go's SetPreTaskHandler."""
        self._pre_task = handler

    def set_post_task_handler(self, handler: Callable[[Signature], None]) -> None:
        """Calls ``handler(signature)`` after a task and its callbacks; mirrors Go's SetPostTaskHandler."""
        self._post_task = handler

    def set_pre_consume_handler(self, handler: Callable[[Worker], bool]) -> None:
        """Asks ``handler(worker)`` before a message is taken from Redis; mirrors Go's SetPreConsumeHandler.

        While it answers False no message is taken.
        """
        self.server.app.machinery.border.pre_consume = lambda: handler(self)

    def _connect(self) -> list[tuple[Any, Any]]:
        app = self.server.app

        def before(task: Any, **kwargs: Any) -> None:
            signature = current_signature() if task.app is app else None
            if self._pre_task is not None and signature is not None:
                self._pre_task(signature)

        def after(task: Any, **kwargs: Any) -> None:
            signature = current_signature() if task.app is app else None
            if self._post_task is not None and signature is not None:
                self._post_task(signature)

        def failed(sender: Any, exception: Exception, **kwargs: Any) -> None:
            if self._error_handler is not None and sender.app is app:
                self._error_handler(exception)

        receivers = [(signals.task_prerun, before), (signals.task_postrun, after), (signals.task_failure, failed)]
        for signal, receiver in receivers:
            signal.connect(receiver, weak=False)
        return receivers


def _shut_down() -> None:
    raise WorkerShutdown(0)


def _look_up() -> None:
    """Makes the event loop see at once that it is to stop."""


def _host() -> str:
    from celery.utils.nodenames import gethostname

    return str(gethostname())
