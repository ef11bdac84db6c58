"""The Celery application whose messages and results are Machinery's."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from celery import Celery as CeleryApp
from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import task_retry, worker_process_init

from machinery_compat import backends, canvas, continuation, errors, followers, readback, tracing, urls, watchdog
from machinery_compat.app_border import AppBorder
from machinery_compat.backends import fence
from machinery_compat.config import Config, ConfigWatcher
from machinery_compat.dead import DeadQueue
from machinery_compat.eager import Runner
from machinery_compat.pool import exits_are_failures
from machinery_compat.settings import settings_of, transport_options_of
from machinery_compat.transport.border import OPTION
from machinery_compat.transport.redelivery import deliveries
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
            raise fence.Superseded
        if getattr(self.request, "machinery_again", None) is True:
            self.request.delivery_info = {**self.request.delivery_info, "redelivered": True}
            ended = self.app.backend.ended_before(self.request)
            if ended is not None:
                return self.app.backend.meta_of(self.request.id, ended)["result"]
        try:
            if getattr(self.request, "machinery_about", None):
                args = self.app.machinery.workflow.arguments_told(self, args)
            with exits_are_failures():
                return self.run(*args, **kwargs)
        except Reject as exc:
            raw = getattr(self.request, "machinery", None)
            if raw and exc.requeue and self.acks_late:
                # What comes back while its state is STARTED is taken for a task whose worker has died.
                self.app.machinery.border.received([Signature.decode(raw)], [deliveries(raw)])
            raise
        except (Retry, Ignore):
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
            self.request.update(**readback.taken_back(signature), machinery=signature.encode())
        return super().replace(sig)

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Celery's add_to_chord: the chord's body gets the result of one more task."""
        raw = getattr(self.request, "machinery", None)
        if raw and not self.request.chord:
            chord = readback.taken_back(Signature.decode(raw)).get("chord")
            if chord:
                self.request.update(chord=chord, group=chord["options"][followers.MEMBERS][0])
        return super().add_to_chord(sig, lazy)


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
