"""What a browser gets from the server of the stock dashboard."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults


class Stock:
    """The stock dashboard's server over a storage.

    Args:
        storage:
            The storage.
        artifact_store:
            Where files are.
    """

    def __init__(self, storage: Any, artifact_store: Any = None) -> None:
        import optuna_dashboard

        self._app: Any = optuna_dashboard.wsgi(storage, artifact_store=artifact_store)

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """The status and the body of the answer to a request."""
        environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = b"".join(self._app(environ, lambda code, *_: status.append(code)))
        return int(status[0].split()[0]), body

    def study(self, number: int = 0) -> Any:
        """What the page of a study is drawn from."""
        status, body = self.ask(f"/api/studies/{number}")
        assert status == 200, body
        return json.loads(body)

    def downloads(self, number: int = 0) -> dict[int, dict[str, bytes]]:
        """The files on the pages of a study's trials: by trial and by name."""
        found: dict[int, dict[str, bytes]] = {}
        for trial in self.study(number)["trials"]:
            for each in trial["artifacts"]:
                address = f"/artifacts/{number}/{trial['trial_id']}/{each['artifact_id']}"
                status, body = self.ask(address)
                assert status == 200, body
                found.setdefault(trial["number"], {})[each["filename"]] = body
        return found
