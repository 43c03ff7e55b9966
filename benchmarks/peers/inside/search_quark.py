"""AMD Quark's automatic mixed precision; the ways are its two objects of optimization.

``speed`` starts from 16-bit integers and lowers ops to 8 bits, the least sensitive first, as long
as the metric keeps to the threshold: its preset ``S16S16_MIXED_S8S8``, with unsigned activations,
which are the faster ones on processors. ``quality`` starts from 8 bits, its preset ``U8S8_AAWS``
with a scale per channel of a weight, and raises activations to 16, those first that help most,
until the metric keeps to it. There weights stay as they are: to raise one with several scales ends
in an error of broadcasting, and with one scale per weight it is further from the threshold.

Only the ops that the search can change are quantized, and SmoothQuant goes first on transformers.
With the presets' own choice of ops, which quantizes all others as well, files were slower and
``quality`` met nothing, since what those lose the search cannot give back.

Quark has one data reader for calibration and for the search, so that the search's metric would be
of the calibration samples. Here the search gets the evaluation samples instead, through the one
function with which it runs models.
"""

from __future__ import annotations

from collections.abc import Iterator
import importlib
from pathlib import Path
from typing import Any

from counting import Counter
import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import ModelQuantizer
from quark.onnx import QConfig
from quark.onnx.algorithm.finetuning.onnx_evaluate import inference_model
from quark.onnx.quantization.config.algorithm import AlgoConfig
from quark.onnx.quantization.config.algorithm import AutoMixprecisionConfig
from quark.onnx.quantization.config.algorithm import SmoothQuantConfig
from quark.onnx.quantization.config.spec import Int8Spec
from quark.onnx.quantization.config.spec import Int16Spec
from quark.onnx.quantization.config.spec import QLayerConfig
from quark.onnx.quantization.config.spec import QuantGranularity
from quark.onnx.quantization.config.spec import UInt8Spec
from quark.onnx.quantization.config.spec import UInt16Spec
from task import Task
from task import model_for_peer


_OP_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RUN_MODELS = ("auto_mixprecision", "mixing_executor", "sensitivity_analyzer")


class Reader(CalibrationDataReader):
    def __init__(self, name: str, batches: list[np.ndarray]) -> None:
        self._name, self._batches = name, batches
        self.reset_iter()

    def reset_iter(self) -> None:
        self._rest: Iterator[np.ndarray] = iter(self._batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._rest, None)
        return None if batch is None else {self._name: batch}


def search(task: Task, way: str, path: Path, counter: Counter) -> dict[str, Any]:
    def run_model(model: Any, reader: Any, data_num: Any = None, output: Any = None) -> Any:
        with counter.evaluating():
            return inference_model(model, Reader(task.input_name, task.batches()), None, 0)

    for name in _RUN_MODELS:
        importlib.import_module(f"quark.onnx.algorithm.mprecision.{name}").__dict__[
            "inference_model"
        ] = run_model

    def metric(results: list[list[np.ndarray]]) -> float:
        outputs = np.concatenate([batch[0] for batch in results])
        return float(task.scores(outputs, task.labels).mean())

    with counter.evaluating():
        session = onnxruntime.InferenceSession(task.model, providers=["CPUExecutionProvider"])
        baseline = task.metric(session)
    # The threshold is absolute, so that a relative one takes the FP32 model's metric first. Quark
    # takes it again by itself: that one is not counted.
    counter.evaluation_rows = 0
    config = CONFIGS[way](
        [SmoothQuantConfig()] if task.transformer else [],
        metric_evaluate_fn=metric,
        metric_threshold=task.absolute_loss(baseline),
        metric_optimize_object=way,
    )
    ModelQuantizer(config).quantize_model(
        model_for_peer(task, path.parent),
        path,
        Reader(task.input_name, task.batches(task.calibration)),
    )
    return {}


def _speed(before: list[AlgoConfig], **options: Any) -> QConfig:
    return QConfig(
        global_config=QLayerConfig(activation=UInt16Spec(), weight=Int16Spec()),
        algo_config=[
            *before,
            AutoMixprecisionConfig(
                QLayerConfig(input_tensors=UInt8Spec(), weight=Int8Spec(), bias=Int8Spec()),
                **options,
            ),
        ],
        extra_options={
            "Percentile": 99.9999,
            "Int32Bias": False,
            "Int16Bias": False,
            "ForceQuantizeNoInputCheck": True,
            "OpTypesToQuantize": list(_OP_TYPES),
        },
    )


def _quality(before: list[AlgoConfig], **options: Any) -> QConfig:
    weight = Int8Spec(quant_granularity=QuantGranularity.Channel)
    return QConfig(
        global_config=QLayerConfig(activation=UInt8Spec(), weight=weight),
        algo_config=[
            *before,
            AutoMixprecisionConfig(QLayerConfig(input_tensors=UInt16Spec()), **options),
        ],
        extra_options={
            "Percentile": 99.9999,
            "ForceQuantizeNoInputCheck": True,
            "OpTypesToQuantize": list(_OP_TYPES),
        },
    )


CONFIGS = {"speed": _speed, "quality": _quality}
