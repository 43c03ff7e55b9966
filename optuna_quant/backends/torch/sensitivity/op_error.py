"""Sensitivity by error: how far the quantization of an op moves its own output."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.sensitivity.pieces import pieces_within
from optuna_quant.backends.sensitivity.relative_error import RelativeError
from optuna_quant.backends.sensitivity.sampled import SampledSensitivity
from optuna_quant.backends.torch.graph.recording import OpRecorder
from optuna_quant.backends.torch.sensitivity.variants import Variant


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    import torch

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.torch.candidates.plan import OpPlan
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.recording import Recording
    from optuna_quant.backends.torch.sensitivity.variants import Variants
    from optuna_quant.space.config import QuantConfig

    Plans = Mapping[Variant, OpPlan]


_logger = get_logger(__name__)


class OpErrorSensitivity(SampledSensitivity):
    """The error that the quantization of each op brings to its output.

    One pass over the samples runs the float program; beside it each op computes on what it reads
    there in each of its options. So a score is an op's own contribution; the error that piles up
    along a quantized model ranks the last ops highest, whatever they did. An op in fallback
    scores zero.

    The score is the mean squared error over the variance of the float output, averaged with the
    same taken channel by channel (each at most 1) where an op has output channels. No error
    scores zero, also where the output is constant. A batch normalization that is folded into an
    op belongs to it.

    Args:
        variants:
            The ways in which ops can be switched.
        data:
            The samples.
        samples:
            How many samples are used, from the start of the data.

    Raises:
        ValueError:
            If ``samples`` is not a positive number.
    """

    what = "the error of their outputs"

    def __init__(self, variants: Variants, data: CalibrationData, *, samples: int = 256) -> None:
        super().__init__(samples=samples)
        self._variants = variants
        self._data = data

    def score_options(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> list[dict[str, float]]:
        """Score ops in several options each, in one pass; an option that recurs counts once.

        Args:
            configs:
                The configurations.
            ops:
                The names of the ops.

        Returns:
            The scores of each configuration, as calling this object gives them.

        Raises:
            ValueError:
                If an op is not in a configuration.
        """
        started = time.perf_counter()
        found = [self._variants.of(config, ops) for config in configs]
        plans = {variant: plan for each in found for variant, plan in each.items()}
        errors = self._errors(plans)
        scores = [dict.fromkeys(ops, 0.0) for _ in configs]
        for of_config, variants in zip(scores, found, strict=True):
            of_config.update({variant.op: errors[variant] for variant in variants})
        _logger.info(
            f"Scored {len(ops)} ops by {self.what} in {time.perf_counter() - started:.1f} s."
        )
        return scores

    def _parts_of_weights(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        whole = self._variants.of(config, ops)
        alone = {
            Variant(variant.op, variant.content, weights_alone=True): plan
            for variant, plan in whole.items()
            if plan.weight is not None
        }
        errors = self._errors({**whole, **alone})
        found = {}
        for variant in whole:
            of_weights = Variant(variant.op, variant.content, weights_alone=True)
            if errors[variant] > 0:
                found[variant.op] = min(1.0, errors.get(of_weights, 0.0) / errors[variant])
        return found

    def _errors(self, plans: Plans) -> dict[Variant, float]:
        """The error of each variant."""
        found = {each: RelativeError(_channel_axis(self._variants.op(each))) for each in plans}
        for run in self._runs(plans):
            for variant, values in run.outputs():
                found[variant].update(_array(run.exact(variant)), _array(values))
        errors = {key: (error.whole + error.by_channel) / 2 for key, error in found.items()}
        return {key: error if np.isfinite(error) else 0.0 for key, error in errors.items()}

    def _runs(self, plans: Plans, *, gradients: bool = False) -> Iterator[VariantRun]:
        """The program on the samples piece by piece, and what each variant makes of them."""
        if not plans:
            return
        recorder = OpRecorder(self._variants.program, {variant.op for variant in plans})
        for piece in pieces_within(self._data, self._samples, recorder.nbytes):
            recording = recorder.record(piece.feed, gradients=gradients)
            yield VariantRun(self._variants, recorder, recording, plans)


class VariantRun:
    """What the variants of ops give for some samples.

    Args:
        variants:
            The ways in which ops can be switched.
        recorder:
            What has recorded the float program.
        recording:
            What it has recorded.
        plans:
            The variants.
    """

    def __init__(
        self, variants: Variants, recorder: OpRecorder, recording: Recording, plans: Plans
    ) -> None:
        self._variants = variants
        self._recorder = recorder
        self._plans = plans
        self.recording = recording

    def exact(self, variant: Variant) -> torch.Tensor:
        """What the op of a variant gives in the float program."""
        return self.recording.ops[variant.op].output.detach()

    def outputs(self) -> Iterator[tuple[Variant, torch.Tensor]]:
        """What each variant gives."""
        for variant, plan in self._plans.items():
            record = self.recording.ops.get(variant.op)
            if record is not None:
                yield (
                    variant,
                    self._recorder.alone(
                        plan.op,
                        record,
                        self._variants.switch(plan),
                        weights_alone=variant.weights_alone,
                    ),
                )


def _channel_axis(op: TorchOp) -> int | None:
    if op.is_conv:
        assert op.shape is not None
        return 1 - len(op.shape)  # Behind it are the axes of space.
    return -1 if op.op_type == "Linear" else None


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
