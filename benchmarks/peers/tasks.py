"""The tasks that are set to all: models with their data and tolerances."""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import importlib.util
import json
from pathlib import Path

import numpy as np

from benchmarks.cases import load_case
from benchmarks.peers.inside.task import Task


@dataclass(frozen=True)
class _Kind:
    tolerable_loss: float
    relative: bool
    transformer: bool = False


CASES = {
    "digits_dscnn_uneq": _Kind(0.02, relative=False),
    "digits_vit_out": _Kind(0.004, relative=False, transformer=True),
    "fashion_mobilenet": _Kind(0.005, relative=True),
    "fashion_vit": _Kind(0.01, relative=True, transformer=True),
}
REAL = {
    "angle": _Kind(0.003, relative=True),
    # A convolutional network with two blocks of attention.
    "lines": _Kind(0.05, relative=True, transformer=True),
}
_BATCH_SIZE = 64


def make_task(name: str, cases: Path, real_models: Path | None) -> Task:
    """Read a case.

    Args:
        name:
            One of :data:`CASES` or :data:`REAL`.
        cases:
            The directory with a folder per case, and ``real`` with ``cases.py``.
        real_models:
            Where the models of ``real`` lie.
    """
    if name in CASES:
        case = load_case(cases / name)
        return Task(
            name=name,
            model=str(case.model.resolve()),
            input_name=case.input_name,
            batch_size=_BATCH_SIZE,
            calibration=case.calibration,
            x=case.x,
            labels=np.asarray(case.y),
            **asdict(CASES[name]),
        )
    if real_models is None:
        raise ValueError(f"The case {name!r} needs --real-models, the directory of its model.")
    spec = importlib.util.spec_from_file_location("real_cases", cases / "real" / "cases.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts = module.case(real_models, name)
    data = dict(facts["data"])
    labels = np.asarray(data.pop("labels"))
    ((input_name, x),) = data.items()
    return Task(
        name=name,
        model=str(Path(facts["model"]).resolve()),
        input_name=input_name,
        batch_size=facts.get("batch_size", _BATCH_SIZE),
        calibration=np.concatenate([batch[input_name] for batch in facts["calibration_data"]]),
        x=x,
        labels=labels,
        **asdict(REAL[name]),
    )


def write_task(task: Task, folder: Path) -> None:
    """Write what :func:`benchmarks.peers.inside.task.read_task` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        field: getattr(task, field)
        for field in (
            "name",
            "model",
            "input_name",
            "batch_size",
            "tolerable_loss",
            "relative",
            "transformer",
        )
    }
    (folder / "task.json").write_text(json.dumps(facts, indent=1))
    np.savez(folder / "data.npz", calibration=task.calibration, x=task.x, labels=task.labels)
