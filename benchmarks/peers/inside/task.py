"""What is to be done: a model, its data and how good the result must be.

Everything in this folder runs in the environments of the peers too, where numpy, onnx and
onnxruntime are all that is there beside the peer.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter


_PER_CHANNEL_OPSET = 13


@dataclass(frozen=True)
class Task:
    """A model, its data and how good the result must be.

    Args:
        name:
            The case's name.
        model:
            The path of the FP32 model.
        input_name:
            The name of its input.
        batch_size:
            How many samples are run at once.
        tolerable_loss:
            The most that may be lost.
        relative:
            Whether that is relative to the FP32 model's metric.
        transformer:
            Whether the model is a transformer, which some tools want to be told.
        calibration:
            The calibration samples.
        x:
            The evaluation samples.
        labels:
            Their labels: an index for each sample, or several for each.
    """

    name: str
    model: str
    input_name: str
    batch_size: int
    tolerable_loss: float
    relative: bool
    transformer: bool
    calibration: np.ndarray
    x: np.ndarray
    labels: np.ndarray

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The score of each sample: the part of its labels that the outputs get right."""
        right = np.asarray(outputs).argmax(axis=-1) == labels
        return right.reshape(len(right), -1).mean(axis=1)

    def batches(self, x: np.ndarray | None = None) -> list[np.ndarray]:
        """Samples, by default those for evaluation, in batches."""
        x = self.x if x is None else x
        return [x[i : i + self.batch_size] for i in range(0, len(x), self.batch_size)]

    def metric(self, session: Any) -> float:
        """The mean score over the evaluation samples."""
        outputs = [session.run(None, {self.input_name: batch})[0] for batch in self.batches()]
        return float(self.scores(np.concatenate(outputs), self.labels).mean())

    def absolute_loss(self, baseline: float) -> float:
        """The most that may be lost, in units of the metric."""
        return self.tolerable_loss * baseline if self.relative else self.tolerable_loss


def model_for_peer(task: Task, folder: Path) -> str:
    """The path of the FP32 model at opset 13 or later.

    Below that Q/DQ nodes have one scale each, and peers quantize weights per tensor or not at all.
    The model is raised to 13 then, and written into the folder.
    """
    model = onnx.load(task.model)
    if _opset(model) >= _PER_CHANNEL_OPSET:
        return task.model
    path = folder / "fp32.onnx"
    onnx.save(onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET), path)
    return str(path)


def _opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def read_task(folder: Path) -> Task:
    """Read a task that :func:`benchmarks.peers.tasks.write_task` has written."""
    facts = json.loads((folder / "task.json").read_text())
    with np.load(folder / "data.npz") as data:
        return Task(**facts, **{name: data[name] for name in ("calibration", "x", "labels")})
