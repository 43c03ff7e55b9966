"""The cases that benchmarks run on: a folder each, with model.onnx, calib.npz and eval.npz."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


DEMO = Path(__file__).parent.parent / "examples" / "digits"


@dataclass(frozen=True)
class Case:
    """A model with its data, ready to be fed.

    Args:
        name:
            The folder's name.
        model:
            The ONNX file.
        input_name:
            The name of the model's input.
        calibration:
            The calibration samples.
        x:
            The evaluation samples.
        y:
            Their labels.
    """

    name: str
    model: Path
    input_name: str
    calibration: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def accuracy(self, samples: int | None = None) -> Callable[[Any], float]:
        """The evaluation function: the part of samples whose class is right."""
        x, y = self.x[:samples], self.y[:samples]

        def evaluate(session: Any) -> float:
            right = 0
            for start in range(0, len(x), 250):
                (scores,) = session.run(None, {self.input_name: x[start : start + 250]})
                right += int((scores.argmax(axis=1) == y[start : start + 250]).sum())
            return right / len(y)

        return evaluate


def load_case(folder: Path) -> Case:
    """Read a case; pixels are normalised where the file says how."""
    import onnx

    model = onnx.load(folder / "model.onnx")
    calib, evaluation = np.load(folder / "calib.npz"), np.load(folder / "eval.npz")

    def prepare(x: np.ndarray) -> np.ndarray:
        if "mean" not in calib.files:
            return x
        return ((x.astype(np.float32) / 255 - calib["mean"]) / calib["std"]).astype(np.float32)

    return Case(
        name=folder.name,
        model=folder / "model.onnx",
        input_name=model.graph.input[0].name,
        calibration=prepare(calib["x"]),
        x=prepare(evaluation["x"]),
        y=evaluation["y"],
    )
