"""The tools that are compared, and running one of them in its environment."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from typing import Any


_GRACE_SECONDS = 30.0
_MOST_WAITING = 10
_VERSIONS = """
import importlib.metadata as m, json, sys
print(json.dumps({n: m.version(n) for n in sys.argv[1:]} | {"python": sys.version.split()[0]}))
"""


@dataclass(frozen=True)
class Tool:
    """A tool and a way to use it.

    Args:
        name:
            The name in the table.
        search:
            The module of the folder ``inside`` that searches with it.
        way:
            What the module is told.
        variable:
            The environment variable with the path of the Python that has the tool;
            :obj:`None` for this one.
        packages:
            The packages whose versions matter.
    """

    name: str
    search: str
    way: str
    variable: str | None
    packages: tuple[str, ...]

    @property
    def python(self) -> str | None:
        """The Python to run it with; :obj:`None` if the environment does not say."""
        if self.variable is None:
            return sys.executable
        return os.environ.get(self.variable) or None

    def versions(self) -> dict[str, str]:
        """The versions of the packages and of Python."""
        command = [str(self.python), "-c", _VERSIONS, *self.packages]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        versions: dict[str, str] = json.loads(shown)
        return versions


_RUNTIME = ("onnx", "onnxruntime", "numpy")
_NNCF = ("nncf", *_RUNTIME)
_QUARK = ("amd-quark", "torch", *_RUNTIME)
OURS = (
    Tool("optuna_quant, data=", "search_ours", "data", None, ("optuna", *_RUNTIME)),
    Tool("optuna_quant, evaluate=", "search_ours", "evaluate", None, ("optuna", *_RUNTIME)),
)
PEERS = (
    Tool("NNCF, performance", "search_nncf", "performance", "NNCF_PYTHON", _NNCF),
    Tool("NNCF, mixed", "search_nncf", "mixed", "NNCF_PYTHON", _NNCF),
    Tool("NNCF, mixed, per tensor", "search_nncf", "per_tensor", "NNCF_PYTHON", _NNCF),
    Tool("Quark, speed", "search_quark", "speed", "QUARK_PYTHON", _QUARK),
    Tool("Quark, quality", "search_quark", "quality", "QUARK_PYTHON", _QUARK),
)


def run_tool(tool: Tool, task: Path, out: Path, *, timeout: float) -> dict[str, Any]:
    """Run a tool on a task.

    Args:
        tool:
            The tool, which has a Python.
        task:
            The task's folder.
        out:
            The folder for what it makes: ``model.onnx``, ``outcome.json`` and ``log.txt``. What is
            there is removed.
        timeout:
            After how many seconds of processor time the search is ended; everything has one
            thread, so that on a machine that does nothing else they are seconds. On one that does
            it is ended after ten times as many seconds in any case.

    Returns:
        The outcome. Its ``status`` is ``"done"``, ``"crash"`` (with a ``message``) or
        ``"timeout"``.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    script = Path(__file__).parent / "inside" / "run.py"
    command = [str(tool.python), str(script), tool.search, str(task), tool.way, str(out)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PEERS_CPU_SECONDS": str(timeout),
    }
    if tool.variable is not None:
        environment.pop("PYTHONPATH", None)
    with (out / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=out,
            start_new_session=True,
        )
        try:
            process.wait(_MOST_WAITING * timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    written = out / "outcome.json"
    if written.exists():
        outcome: dict[str, Any] = json.loads(written.read_text())
        return outcome
    last = (out / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
    status = "crash" if process.returncode not in (-signal.SIGTERM, -signal.SIGKILL) else "timeout"
    return {"status": status, "message": (last or ["no output"])[0][:500]}
