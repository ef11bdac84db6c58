"""Machinery's Server: where tasks are registered and sent from."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from machinery_compat import errors, sending, tracing
from machinery_compat.application import Celery
from machinery_compat.backends.base import Backend
from machinery_compat.config import Config
from machinery_compat.dead import DeadQueue
from machinery_compat.locks import Lock, lock_for
from machinery_compat.periodic import Periodic
from machinery_compat.results import AsyncResult, ChainAsyncResult, ChordAsyncResult
from machinery_compat.transport import transport_for
from machinery_compat.wire import Chain, Chord, Group, Signature
from machinery_compat.worker import Worker

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["Broker", "Server"]


class Broker:
    """What can be asked of the broker; mirrors Go's ``iface.Broker``."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def get_pending_tasks(self, queue: str = "") -> list[Signature]:
        """The tasks that wait in a queue (by default the server's); mirrors Go's GetPendingTasks.

        What is no Signature is logged and left out, where Go's whole call fails.
        """
        with self._app.connection_for_read() as connection:
            found: list[Signature] = connection.default_channel.pending_tasks(
                queue or self._app.conf.task_default_queue
            )
            return found

    def get_delayed_tasks(self) -> list[Signature]:
        """The tasks that are not due yet, the earliest first; mirrors Go's GetDelayedTasks.

        Raises:
            MachineryError: the broker cannot tell (AMQP, as in Go).
        """
        with self._app.connection_for_read() as connection:
            found: list[Signature] = connection.default_channel.delayed_tasks()
            return found

    def dead_letters(self, queue: str = "") -> DeadQueue:
        """The messages of a queue (by default the server's) that nobody could run; Go keeps none."""
        return DeadQueue(self._app, queue)


class Server:
    """Registers and sends tasks, and makes workers; mirrors Go's ``Server``.

    Args:
        config: Machinery's configuration; by default that of MACHINERY_CONFIG or the environment.
        app: an application of this package to serve instead of a new one.
        lock: the lock that periodic tasks share; by default the one that ``config.lock`` means.
        program_name: the name that processes must share, Go's too, to send a periodic task once (default: the setting
            ``machinery_program_name``, or else the file name of the program, as in Go).
        run_periodic: whether this process sends periodic tasks, as every Server of Go does; False leaves it to
            ``celery beat``.

    Raises:
        ConfigError: no broker is known for the URL of the configuration, or its driver is not installed.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        app: Celery | None = None,
        lock: Lock | None = None,
        program_name: str | None = None,
        run_periodic: bool = True,
    ) -> None:
        if app is None:
            config = config or Config.load()
            # Here, as in Go, and not when the first task is sent.
            for url in ";".join(config.broker_urls).split(";"):
                transport_for(url)
            app = Celery("machinery", config=config, set_as_current=False)
        self.app = app
        self.broker = Broker(app)
        self._lock = lock
        self._making_lock = threading.Lock()
        self.periodic = Periodic(self, program_name, run_periodic)
        self._pre_publish: Callable[[Signature], None] | None = None
        app.machinery.pre_publish.append(self._call_pre_publish)

    @property
    def config(self) -> Config:
        """Machinery's configuration; mirrors Go's GetConfig."""
        config: Config = self.app.machinery.config
        return config

    @property
    def lock(self) -> Lock:
        """The lock that periodic tasks share.

        Raises:
            ConfigError: the URL of the configuration means none.
        """
        with self._making_lock:
            if self._lock is None:
                self._lock = lock_for(self.config.lock, self.config)
            return self._lock

    @lock.setter
    def lock(self, lock: Lock) -> None:
        self._lock = lock

    @property
    def backend(self) -> Backend:
        """The result backend; mirrors Go's GetBackend.

        Raises:
            ConfigError: there is none.
        """
        backend = self.app.backend
        if not isinstance(backend, Backend):
            raise errors.ConfigError("Result backend required")
        return backend

    # -- tasks

    def register_task(self, name: str, function: Callable[..., Any]) -> None:
        """Registers a function under a name, in place of any that it had; mirrors Go's RegisterTask.

        Its return value is the task's result (None: none, a tuple: several), an exception its error.

        Raises:
            ConfigError: it cannot be called.
        """
        if not callable(function):
            raise errors.ConfigError(f"Task must be a func type: {name} is a {type(function).__name__}")
        self.app.tasks.pop(name, None)
        # A shared task would appear in every application of this process.
        self.app.task(name=name, shared=False)(_plain_function(function))

    def register_tasks(self, tasks: Mapping[str, Callable[..., Any]]) -> None:
        """Registers several functions under their names; mirrors Go's RegisterTasks."""
        for name, function in tasks.items():
            self.register_task(name, function)

    def is_task_registered(self, name: str) -> bool:
        """Mirrors Go's IsTaskRegistered."""
        return name in self.app.tasks

    def get_registered_task(self, name: str) -> Any:
        """The task of a name; mirrors Go's GetRegisteredTask.

        Raises:
            TaskNotRegistered: there is none.
        """
        try:
            return self.app.tasks[name]
        except KeyError:
            raise errors.TaskNotRegistered(f"Task not registered error: {name}") from None

    def get_registered_task_names(self) -> list[str]:
        """The names of the tasks, Celery's own left out; mirrors Go's GetRegisteredTaskNames."""
        return sorted(name for name in self.app.tasks if not name.startswith(("celery.", "machinery_compat.")))

    # -- sending

    def set_pre_task_handler(self, handler: Callable[[Signature], None]) -> None:
        """Calls ``handler(signature)`` before a task is published; mirrors Go's SetPreTaskHandler."""
        self._pre_publish = handler

    def _call_pre_publish(self, signature: Signature) -> None:
        if self._pre_publish is not None:
            self._pre_publish(signature)

    def send_task(self, signature: Signature) -> AsyncResult:
        """Sends a task; mirrors Go's SendTask.

        Raises:
            ConfigError: there is no result backend.
            EncodeError: the task cannot be sent.
            kombu.exceptions.OperationalError: the broker or the result backend cannot be reached.
            TypeError: it is no Signature.
        """
        sending.expect(Signature, signature)
        backend = self.backend
        return AsyncResult(self.app.machinery.workflow.send(signature), backend)

    def send_chain(self, chain: Chain) -> ChainAsyncResult:
        """Sends a chain; mirrors Go's SendChain. Raises as :meth:`send_task`."""
        sending.expect(Chain, chain)
        backend = self.backend
        self.app.machinery.workflow.send_chain(chain)
        return ChainAsyncResult(chain.tasks, backend)

    def send_group(
        self, group: Group, send_concurrency: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> list[AsyncResult]:
        """Sends a group; mirrors Go's SendGroup. Raises as :meth:`send_task`.

        Args:
            group: the group.
            send_concurrency: taken for Go's sake; the messages go out together, in few round trips.
            progress: called with the number of tasks sent and their total.

        Returns:
            the results in the order of the members.
        """
        sending.expect(Group, group)
        backend = self.backend
        self.app.machinery.workflow.send_group(group, progress)
        return [AsyncResult(signature, backend) for signature in group.tasks]

    def send_chord(
        self, chord: Chord, send_concurrency: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> ChordAsyncResult:
        """Sends a chord; mirrors Go's SendChord. Arguments and errors as :meth:`send_group`."""
        sending.expect(Chord, chord)
        backend = self.backend
        self.app.machinery.workflow.send_chord(chord, progress)
        return ChordAsyncResult(chord.group.tasks, chord.callback, backend)

    # -- sending in a trace

    def send_task_with_context(self, ctx: Context | None, signature: Signature) -> AsyncResult:
        """Sends a task with an OpenTelemetry context in its Headers; mirrors Go's SendTaskWithContext.

        Raises as :meth:`send_task`, and ConfigError where OpenTelemetry is not installed.

        Args:
            ctx: the context; None is the current one.
            signature: the task.
        """
        with tracing.sending_task(ctx, signature):
            return self.send_task(signature)

    def send_chain_with_context(self, ctx: Context | None, chain: Chain) -> ChainAsyncResult:
        """Sends a chain with the context in the Headers of all its tasks; mirrors Go's SendChainWithContext.

        Arguments and errors are those of :meth:`send_task_with_context` and :meth:`send_chain`.
        """
        with tracing.sending_chain(ctx, chain):
            return self.send_chain(chain)

    def send_group_with_context(
        self,
        ctx: Context | None,
        group: Group,
        send_concurrency: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[AsyncResult]:
        """Sends a group with the context in the Headers of all members; mirrors Go's SendGroupWithContext.

        Arguments and errors are those of :meth:`send_task_with_context` and :meth:`send_group`.
        """
        with tracing.sending_group(ctx, group, send_concurrency):
            return self.send_group(group, send_concurrency, progress)

    def send_chord_with_context(
        self,
        ctx: Context | None,
        chord: Chord,
        send_concurrency: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> ChordAsyncResult:
        """Sends a chord with the context in the Headers of members and callback; mirrors Go's SendChordWithContext.

        Arguments and errors are those of :meth:`send_task_with_context` and :meth:`send_chord`.
        """
        with tracing.sending_chord(ctx, chord, send_concurrency):
            return self.send_chord(chord, send_concurrency, progress)

    # -- sending again and again

    def register_periodic_task(self, spec: str, name: str, signature: Signature) -> None:
        """Sends a task again and again; mirrors Go's RegisterPeriodicTask.

        Each time a copy is sent, with a UUID of its own, if no other process holds the lock. ``server.periodic.stop()``
        ends it.

        Args:
            spec: the times, as :func:`machinery_compat.cron.parse` reads them.
            name: what the task is called, in logs and in the lock; not the registered task's name.
            signature: the task.

        Raises:
            CronError: no such times; the text is Go's.
            EncodeError: the task could not be sent.
        """
        self.periodic.add_task(spec, name, signature)

    def register_periodic_chain(self, spec: str, name: str, *signatures: Signature) -> None:
        """Sends a chain of the tasks again and again; mirrors Go's RegisterPeriodicChain.

        Arguments and errors are those of :meth:`register_periodic_task`.
        """
        self.periodic.add_chain(spec, name, signatures)

    def register_periodic_group(self, spec: str, name: str, send_concurrency: int, *signatures: Signature) -> None:
        """Sends a group of the tasks again and again; mirrors Go's RegisterPeriodicGroup.

        Arguments and errors are those of :meth:`register_periodic_task` and :meth:`send_group`.
        """
        self.periodic.add_group(spec, name, send_concurrency, signatures)

    def register_periodic_chord(
        self, spec: str, name: str, send_concurrency: int, callback: Signature, *signatures: Signature
    ) -> None:
        """Sends a chord of the tasks again and again; mirrors Go's RegisterPeriodicChord.

        Arguments and errors are those of :meth:`register_periodic_task` and :meth:`send_chord`.
        """
        self.periodic.add_chord(spec, name, send_concurrency, callback, signatures)

    # -- workers

    def new_worker(self, consumer_tag: str, concurrency: int = 0, pool: str = "threads") -> Worker:
        """A worker of the default queue; mirrors Go's NewWorker."""
        return Worker(self, consumer_tag, concurrency, pool=pool)

    def new_custom_queue_worker(
        self, consumer_tag: str, concurrency: int = 0, queue: str = "", pool: str = "threads"
    ) -> Worker:
        """A worker of another queue; mirrors Go's NewCustomQueueWorker."""
        return Worker(self, consumer_tag, concurrency, queue, pool=pool)


def _plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Celery makes tasks of named functions only: others (lambdas, partials, builtins…) get one around them."""
    if inspect.isfunction(function) and function.__name__.isidentifier():
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    run.__doc__ = function.__doc__
    try:
        inspect.signature(function)
    except ValueError:
        # Some builtins do not tell what they take.
        return run
    run.__annotations__ = dict(getattr(function, "__annotations__", None) or {})
    run.__wrapped__ = function  # type: ignore[attr-defined]
    return run
