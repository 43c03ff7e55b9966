"""Run a search in an environment of its own: ``python run.py SEARCH TASK WAY OUT``.

``SEARCH`` is a module of this folder, ``TASK`` a folder with ``task.json`` and ``data.npz``,
``WAY`` a setting that the search knows, ``OUT`` a folder for ``model.onnx`` and ``outcome.json``.
The environment variable ``PEERS_CPU_SECONDS`` limits the processor time, without imports.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from pathlib import Path
import resource
import signal
import sys
import time
import traceback
from typing import Any

from counting import Counter
from counting import count_runs
from task import read_task


_GRACE_SECONDS = 30
"""How long what was counted may take to be written down."""


def main() -> None:
    """Search and write the outcome, whatever happens."""
    module, way = sys.argv[1], sys.argv[3]
    task, out = read_task(Path(sys.argv[2])), Path(sys.argv[4])
    counter = Counter()
    # Before the tool is imported, so that it finds the sessions that count.
    count_runs(counter)
    search = importlib.import_module(module).search
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGXCPU, _end)
    start, cpu = time.perf_counter(), _cpu_seconds()
    if limit := os.environ.get("PEERS_CPU_SECONDS"):
        end = math.ceil(cpu + float(limit))
        resource.setrlimit(resource.RLIMIT_CPU, (end, end + _GRACE_SECONDS))
    outcome: dict[str, Any] = {"status": "done"}
    facts: dict[str, Any] = {}
    try:
        facts = search(task, way, out / "model.onnx", counter)
    except _Ended:
        outcome = {"status": "timeout"}
    except Exception as error:
        outcome = {"status": "crash", "message": f"{type(error).__name__}: {error}"[:500]}
        traceback.print_exc()
    outcome |= {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": _cpu_seconds() - cpu,
        "sets": counter.evaluation_rows / len(task.x),
        "other_sets": counter.other_rows / len(task.x),
    }
    (out / "outcome.json").write_text(json.dumps(outcome | facts, indent=1))


class _Ended(BaseException):
    """The time is over."""


def _end(signum: int, frame: object) -> None:
    raise _Ended


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    main()
