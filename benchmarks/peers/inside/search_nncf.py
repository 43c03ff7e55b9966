"""NNCF's quantization with accuracy control; the ways are its two presets, and one of ours.

Told to it is what its documentation asks for: the target device (CPU), the model's type where it
is a transformer, samples one by one for calibration, and a score per sample for the ranking. The
fix for overflows is off where the processor has VNNI, as the documentation says.

``per_tensor`` is the preset ``mixed`` with one scale for each activation. For processors NNCF
gives the activations of depthwise convolutions a scale per channel, and ONNX Runtime has no
integer kernel for those.
"""

from __future__ import annotations

from collections.abc import Iterable
import itertools
from pathlib import Path
from typing import Any

from counting import Counter
import nncf
from nncf.quantization.advanced_parameters import QuantizationParameters
import numpy as np
import onnx
import onnxruntime
from task import Task
from task import model_for_peer


def search(task: Task, way: str, path: Path, counter: Counter) -> dict[str, Any]:
    model = onnx.load(model_for_peer(task, path.parent))

    def validate(candidate: onnx.ModelProto, items: Iterable[Any]) -> tuple[float, list[float]]:
        with counter.evaluating():
            session = onnxruntime.InferenceSession(
                candidate.SerializeToString(), providers=["CPUExecutionProvider"]
            )
            scores: list[float] = []
            items = iter(items)
            while batch := list(itertools.islice(items, task.batch_size)):
                x = np.stack([sample for sample, _ in batch])
                (outputs, *_) = session.run(None, {task.input_name: x})
                scores += task.scores(outputs, np.stack([y for _, y in batch])).tolist()
            return float(np.mean(scores)), scores

    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=_overflow_fix())
    if way == "per_tensor":
        advanced.activations_quantization_params = QuantizationParameters(per_channel=False)
    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(
            task.calibration, lambda sample: {task.input_name: sample[None]}
        ),
        validation_dataset=nncf.Dataset(list(zip(task.x, task.labels, strict=True))),
        validation_fn=validate,
        max_drop=task.tolerable_loss,
        drop_type=nncf.DropType.RELATIVE if task.relative else nncf.DropType.ABSOLUTE,
        preset=nncf.QuantizationPreset("mixed" if way == "per_tensor" else way),
        target_device=nncf.TargetDevice.CPU,
        model_type=nncf.ModelType.TRANSFORMER if task.transformer else None,
        advanced_quantization_parameters=advanced,
    )
    onnx.save(quantized, path)
    return {}


def _overflow_fix() -> nncf.OverflowFix:
    info = Path("/proc/cpuinfo")
    has_vnni = info.exists() and "vnni" in info.read_text()
    return nncf.OverflowFix.DISABLE if has_vnni else nncf.OverflowFix.FIRST_LAYER
