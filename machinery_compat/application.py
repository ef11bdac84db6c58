"""The Celery application whose messages and results are Machinery's."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

from celery import Celery as CeleryApp
from celery import Task as CeleryTask
from celery.app.task import extract_exec_options
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import task_retry, worker_process_init
from celery.worker import state as worker_state
from kombu import Queue

from machinery_compat import (
    backends,
    canvas,
    celery_header,
    continuation,
    errors,
    followers,
    sending,
    tracing,
    urls,
    watchdog,
)
from machinery_compat.backends import fence
from machinery_compat.backends.base import Backend
from machinery_compat.config import Config, ConfigWatcher, GCPPubSubConfig, RedisConfig, SQSConfig
from machinery_compat.dead import DeadQueue
from machinery_compat.eager import Runner
from machinery_compat.pool import exits_are_failures
from machinery_compat.settings import redelivery_limit_of, settings_of, transport_options_of
from machinery_compat.transport.base import MAX_BODY_SIZE, OPTION, Border, TaskPayload
from machinery_compat.wire import Signature
from machinery_compat.workflow import Workflow

__all__ = ["Celery", "Task", "enable"]

logger = logging.getLogger("machinery_compat")


class Task(CeleryTask):  # type: ignore[misc]
    """The base class of tasks: adds Machinery's retries to Celery's."""

    abstract = True
    Request = "machinery_compat.request:Request"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        if fence.is_superseded(self.request):
            # Another worker has begun it since; nothing that this run would do counts.
            raise Ignore
        try:
            if getattr(self.request, "machinery_about", None):
                args = self.app.machinery.workflow.arguments_told(self, args)
            with exits_are_failures():
                return self.run(*args, **kwargs)
        except (Retry, Ignore, Reject):
            raise
        except Exception as exc:
            raw = getattr(self.request, "machinery", None)
            retry = self.app.machinery.workflow.plan_retry(Signature.decode(raw), exc) if raw else None
            if retry is None:
                # What cannot be pickled loses its text on the way to the result backend.
                self.request.machinery_error = canvas.error_text(exc)
                raise
            raise retry from exc
        finally:
            if getattr(self.request, "machinery", None) is not None:
                self.app.machinery.eager.body_ended(self.request.id)

    def replace(self, sig: Any) -> Any:
        """Celery's replace: what follows this task follows the one in its place."""
        raw = getattr(self.request, "machinery", None)
        if raw:
            signature = Signature.decode(raw)
            self.request.update(**followers.taken_back(signature), machinery=signature.encode())
        return super().replace(sig)

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Celery's add_to_chord: the chord's body gets the result of one more task."""
        raw = getattr(self.request, "machinery", None)
        if raw and not self.request.chord:
            chord = followers.taken_back(Signature.decode(raw)).get("chord")
            if chord:
                self.request.update(chord=chord, group=chord["options"][followers.MEMBERS][0])
        return super().add_to_chord(sig, lazy)


class AppBorder(Border):
    """What a channel learns of a Celery application."""

    enabled = True

    def __init__(self, app: CeleryApp) -> None:
        self.app = app
        self._parameters: dict[str, tuple[Any, canvas.Parameters | None]] = {}
        self._sending = threading.local()

    @property
    def default_queue(self) -> str:  # type: ignore[override]
        return str(self.app.conf.task_default_queue)

    @property
    def strict(self) -> bool:  # type: ignore[override]
        return bool(self.app.conf.get("machinery_strict_types", False))

    @cached_property
    def max_body_size(self) -> int:  # type: ignore[override]
        return int(self.app.conf.get("machinery_max_body_size", MAX_BODY_SIZE) or 0)

    @property
    def delayed_queue(self) -> str:  # type: ignore[override]
        return str(self.app.machinery.config.amqp_settings.delayed_queue)

    @property
    def delay_auto_delete(self) -> bool:  # type: ignore[override]
        return bool(self.app.machinery.config.amqp_settings.auto_delete)

    @property
    def redis(self) -> RedisConfig:  # type: ignore[override]
        return self.app.machinery.config.redis_settings  # type: ignore[no-any-return]

    @property
    def sqs(self) -> SQSConfig:  # type: ignore[override]
        return self.app.machinery.config.sqs or SQSConfig()

    @property
    def gcp_pubsub(self) -> GCPPubSubConfig | None:  # type: ignore[override]
        return self.app.machinery.config.gcp_pubsub  # type: ignore[no-any-return]

    def parameters(self, name: str) -> canvas.Parameters | None:
        task = self.app._tasks.get(name)
        known = self._parameters.get(name)
        if known is not None and known[0] is task:
            return known[1]
        found = canvas.Parameters(task.run) if task is not None else None
        self._parameters[name] = (task, found)
        return found

    def queue_for(self, routing_key: str) -> Queue | None:
        """The queue that a RoutingKey leads to; None where the exchange alone decides."""
        default = self.app.amqp.default_queue
        if routing_key in ("", default.routing_key, default.name):
            return default
        if self.app.conf.task_default_exchange_type != "direct":
            return None
        return self.app.amqp.queues[routing_key]

    @property
    def sends_followers(self) -> bool:  # type: ignore[override]
        return isinstance(self.app.backend, Backend)

    def options_of(self, name: str) -> Mapping[str, Any]:
        task = self.app._tasks.get(name)
        return extract_exec_options(task) if task is not None else {}

    def routing_key_of(self, step: Mapping[str, Any]) -> str:
        amqp = self.app.amqp
        options = {name: value for name, value in step["options"].items() if name == "queue" and value}
        queue = amqp.router.route(options, step["task"], step["args"], step["kwargs"]).get("queue")
        if queue is None or queue == amqp.default_queue:
            return ""
        return str(queue.routing_key if amqp.is_amqp() else queue.name)

    def route(self, exchange: str, routing_key: str) -> tuple[str, str]:
        queues = self.app.amqp.queues
        if self.app.amqp.is_amqp():
            # Celery sends to a queue by its name, through the exchange that has none.
            if exchange:
                return exchange, routing_key
            return queues[routing_key].exchange.name, queues[routing_key].routing_key
        if exchange:
            # Nothing is bound on other brokers: a RoutingKey is the name of a queue.
            for queue in list(queues.values()):
                if (queue.exchange.name, queue.routing_key) == (exchange, routing_key):
                    return exchange, queue.name
        return exchange, routing_key

    def publishing(self, signature: Signature) -> None:
        tracing.carry(self.app, signature)
        for hook in self.app.machinery.pre_publish:
            hook(signature)

    def states_written(self) -> AbstractContextManager[None]:
        """While this lasts, this thread sends tasks whose PENDING states are there already."""
        return self._states_written(True)

    @contextmanager
    def _states_written(self, written: bool) -> Iterator[None]:
        before = getattr(self._sending, "states_written", False)
        self._sending.states_written = written
        try:
            yield
        finally:
            self._sending.states_written = before

    def before_publish(self, signature: Signature, server: str, command: Any = None) -> None:
        if getattr(self._sending, "states_written", False):
            return
        backend = self.app.backend
        if isinstance(backend, Backend) and not _ignores_result(signature):
            with sending.naming(backend):
                backend.store_pending(signature, server, command)

    def run(self, body: bytes) -> None:
        with self._states_written(False):
            self.app.machinery.eager.run(body)

    @property
    def redelivery_limit(self) -> int:  # type: ignore[override]
        return redelivery_limit_of(self.app.conf)

    def received(self, signatures: Sequence[Signature], runs: Sequence[int] = ()) -> None:
        backend = self.app.backend
        if not isinstance(backend, Backend):
            return
        kept = [
            (one, run)
            for one, run in zip(signatures, runs or [0] * len(signatures), strict=True)
            if self._keeps_result(one) and not self.unstorable(one)
        ]
        try:
            for run, group in groupby(kept, key=itemgetter(1)):
                backend.store_received([one for one, _ in group], run)
        except Exception as exc:
            if not backend.exception_safe_to_retry(exc):
                raise
            # The tasks run all the same; what they become is what must be stored.
            logger.warning(
                "the result backend %s is away, %d tasks are not marked as RECEIVED: %s",
                backend.as_uri(),
                len(kept),
                exc,
            )

    def _keeps_result(self, signature: Signature) -> bool:
        """Whether this process runs such tasks, and stores what becomes of them."""
        task = self.app.tasks.get(signature.name)
        return task is not None and not task.ignore_result and not _ignores_result(signature)

    def unstorable(self, signature: Signature) -> str:
        """Why the result backend can keep nothing of a task, which so cannot be run; empty where it can."""
        backend = self.app.backend
        if isinstance(backend, Backend) and self._keeps_result(signature):
            try:
                backend.check_uuid(signature.uuid)
            except errors.BackendError as exc:
                return str(exc)
        return ""

    def progress_of(self, signature: Signature) -> tuple[str, int]:
        backend = self.app.backend
        if not isinstance(backend, Backend) or not self._keeps_result(signature):
            return "", 0
        try:
            state = backend.task_state(signature.uuid)
        except Exception:
            logger.warning("the state of task %s[%s] cannot be read", signature.name, signature.uuid, exc_info=True)
            return "", 0
        return (state.state, fence.written_by(state)) if state is not None else ("", 0)

    def running(self, uuid: str) -> TaskPayload | None:
        request = worker_state.requests.get(uuid)
        if request is None or request.app is not self.app or request not in worker_state.active_requests:
            return None
        return request.message if isinstance(request.message, TaskPayload) else None

    def given_up(self, body: bytes, reason: str) -> None:
        try:
            signature = Signature.decode(body)
        except errors.DecodeError:
            return
        backend = self.app.backend
        if isinstance(backend, Backend):
            backend.fail_unrunnable(signature, reason)


def _ignores_result(signature: Signature) -> bool:
    text = (signature.headers or {}).get(celery_header.HEADER)
    return isinstance(text, str) and '"ignore_result": true' in text


class Machinery:
    """What this package keeps for an application; its attribute ``app.machinery``.

    Attributes:
        config: Machinery's configuration.
        generation: how often it has been replaced.
        border: what the channels ask.
        workflow: what follows a task's end.
        eager: runs tasks in this process.
        documents: what the eager result backend keeps, under a lock.
        pre_publish: called with each Signature before it is sent.
        periodic: the periodic workflows of each Server.
        beat: whether celery beat sends them.
    """

    def __init__(self, app: CeleryApp, config: Config) -> None:
        self.app = app
        self.config = config
        self.generation = 0
        self.border = AppBorder(app)
        self.workflow = Workflow(app)
        self.eager = Runner(app)
        self.documents: dict[str, bytes] = {}
        self.documents_lock = threading.RLock()
        self.pre_publish: list[Any] = []
        self.periodic: list[Any] = []
        self.beat = False
        self._watcher: ConfigWatcher | None = None

    def __repr__(self) -> str:
        return "<machinery>"

    def dead_letters(self, queue: str = "") -> DeadQueue:
        """The messages of a queue (by default the default one) that nobody could run."""
        return DeadQueue(self.app, queue)

    def reload(self, config: Config) -> None:
        """Uses another configuration from now on.

        Broker, result backend and queues stay what they were when the process connected, as in
        Go; the expiry of results and the delay queue change at once.
        """
        self.config = config
        self.app.conf.result_expires = config.results_expire_in
        self.generation += 1

    def watch(self, path: str | os.PathLike[str], interval: float = 10.0) -> None:
        """Reads a YAML file again and again and uses what has changed; Go's ``keepReloading``.

        The processes of a worker's pool do the same.

        Args:
            path: the file.
            interval: seconds between two reads.

        Raises:
            ConfigError: the file cannot be used from the start.
        """
        if self._watcher is None:
            worker_process_init.connect(lambda **kwargs: self.watch(path, interval), weak=False)
        # A process of the pool has inherited the watcher without its thread.
        self._watcher = ConfigWatcher(path, self.reload, interval)
        self._watcher.start()

    def unwatch(self) -> None:
        """Reads the file no more."""
        if self._watcher is not None:
            self._watcher.stop()


def enable(app: CeleryApp, config: Config | None = None) -> CeleryApp:
    """Makes a Celery application speak Machinery; call it right after the application is made.

    Args:
        app: the application.
        config: Machinery's configuration; the application's own broker and result backend are
            kept where it names none.

    Raises:
        ConfigError: the application has connected or made tasks already.
    """
    if "amqp" in app.__dict__ or "Task" in app.__dict__:
        raise errors.ConfigError(
            "enable(app) comes too late: the application has made tasks or connections already; "
            "call it right after the application is made"
        )
    given, config = config is not None, config or Config()
    app.machinery = Machinery(app, config)
    app.amqp_cls = "machinery_compat.messaging:AMQP"
    app.control_cls = "machinery_compat.messaging:Control"
    app.task_cls = f"{__name__}:Task"
    app.loader.override_backends = {
        **app.loader.override_backends,
        **dict.fromkeys((*urls.BACKEND_SCHEMES, "machinery"), "machinery_compat.backends:backend_for"),
    }
    app.add_defaults(lambda: settings_of(config, app.machinery.border, given))
    task_retry.connect(_resend_retry, dispatch_uid="machinery_compat.resend_retry")
    tracing.connect()
    app.on_after_configure.connect(_merge_transport_options, weak=False)
    app.steps["consumer"].add(watchdog.ChordWatch)
    app.on_after_finalize.connect(continuation.register, weak=False)
    return app


def _merge_transport_options(sender: CeleryApp, **kwargs: Any) -> None:
    # The user's options go on top of ours instead of replacing them.
    conf = sender.conf
    ours = transport_options_of(sender.machinery.config, sender.machinery.border)
    for name in ("broker_url", "broker_read_url", "broker_write_url", "result_backend"):
        # Read from the environment where the settings have none.
        url = conf.get(name)
        told = urls.with_colon(url) if url else url
        if told != url:
            conf[name] = told
    # The attribute is what Celery will use: a variable that its command sets goes before the setting.
    if isinstance(conf.result_backend, str):
        backends.claim(sender, conf.result_backend)
    conf.broker_transport_options = {**ours, **conf.broker_transport_options, OPTION: sender.machinery.border}


def _resend_retry(sender: CeleryTask, request: Any = None, **kwargs: Any) -> None:
    machinery = getattr(sender.app, "machinery", None)
    if machinery is not None and request is not None:
        machinery.workflow.resend(request.id)


class Celery(CeleryApp):  # type: ignore[misc]
    """A Celery application that is a member of a Machinery fleet.

    It takes Celery's arguments. ``redis://``, ``amqp://`` and the other URLs mean Machinery's
    broker and result backend.

    Args:
        config: Machinery's configuration, in place of (or beneath) Celery's own settings.
    """

    def __init__(self, *args: Any, config: Config | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        enable(self, config)
