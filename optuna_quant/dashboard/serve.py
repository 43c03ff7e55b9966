"""Serve optuna-dashboard over a storage, and keep its studies published."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from socketserver import ThreadingMixIn
import threading
import time
from typing import TYPE_CHECKING
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.simple_server import WSGIServer
from wsgiref.simple_server import make_server

import optuna

from optuna_quant.dashboard.careful import carefully
from optuna_quant.dashboard.importances import with_importances
from optuna_quant.dashboard.publish import need_dashboard
from optuna_quant.dashboard.publish import publish
from optuna_quant.dashboard.publish import space_of
from optuna_quant.dashboard.shown_storage import ShownStorage


if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from optuna_quant.storages.artifacts import ArtifactStore


REST = 20.0
"""After it was published, a study rests for this many times as long as that has taken."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page asks for its data every few seconds."""


@contextlib.contextmanager
def serving(
    storage: BaseStorage,
    *,
    host: str = "localhost",
    port: int = 8080,
    study_name: str | None = None,
    artifact_store: ArtifactStore | None = None,
    max_parameters: int | None = None,
    interval: float = 10.0,
) -> Iterator[_Server]:
    """A server of optuna-dashboard over a storage, which publishes its studies meanwhile.

    Args:
        storage:
            The storage.
        host:
            The address to listen on.
        port:
            The port; 0 for any.
        study_name:
            The study to publish. Default: all that are ours.
        artifact_store:
            Where files go.
        max_parameters:
            How many parameters of a trial are shown, see :class:`ShownStorage`.
        interval:
            How many seconds are at least between two looks at the studies.

    Raises:
        ImportError:
            If optuna-dashboard is not installed.
        OSError:
            If the port is in use.
    """
    dashboard = need_dashboard()
    shown = ShownStorage(storage, max_parameters=max_parameters)
    app = with_importances(dashboard.wsgi(shown, artifact_store=artifact_store), storage)
    with make_server(host, port, app, server_class=_Server, handler_class=_Quiet) as server:
        ended = threading.Event()
        look = _Publisher(storage, study_name, artifact_store, interval).look
        thread = threading.Thread(target=_repeat, args=(look, ended, interval), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            ended.set()


def _repeat(look: Callable[[], None], ended: threading.Event, interval: float) -> None:
    while True:
        carefully("A study", look)
        if ended.wait(interval):
            return


class _Publisher:
    """Publishes the studies of a storage that have changed."""

    def __init__(
        self,
        storage: BaseStorage,
        study_name: str | None,
        artifact_store: ArtifactStore | None,
        interval: float,
    ) -> None:
        self._storage = storage
        self._name = study_name
        self._artifact_store = artifact_store
        self._interval = interval
        self._seen: dict[str, object] = {}
        self._next: dict[str, float] = {}

    def look(self) -> None:
        """Publish what has changed since the last look."""
        names = [self._name] if self._name else optuna.get_all_study_names(self._storage)
        for name in names:
            if time.monotonic() < self._next.get(name, 0.0):
                continue
            with contextlib.suppress(KeyError):  # It was deleted meanwhile.
                self._publish(optuna.load_study(study_name=name, storage=self._storage))

    def _publish(self, study: optuna.Study) -> None:
        trials = study.get_trials(deepcopy=False)
        finished = sum(trial.state.is_finished() for trial in trials)
        state = (len(trials), finished, str(study.user_attrs))
        if self._seen.get(study.study_name) == state or space_of(study) is None:
            return
        started = time.monotonic()
        publish(study, artifact_store=self._artifact_store)
        taken = time.monotonic() - started
        self._seen[study.study_name] = state
        self._next[study.study_name] = started + taken + max(self._interval, REST * taken)
