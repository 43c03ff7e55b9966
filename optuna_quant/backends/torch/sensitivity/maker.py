"""Making the sensitivities of a program's ops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from optuna_quant.backends.sensitivity.curvature import CurvatureOptions
from optuna_quant.backends.sensitivity.curvature import output_change
from optuna_quant.backends.sensitivity.offered import tell_without_data
from optuna_quant.backends.sensitivity.offered import tell_without_gradients
from optuna_quant.backends.sensitivity.output import OutputSensitivity
from optuna_quant.backends.torch.sensitivity.gradient import GradientSensitivity
from optuna_quant.backends.torch.sensitivity.gradient import chosen_outputs
from optuna_quant.backends.torch.sensitivity.gradient import why_not_differentiable
from optuna_quant.backends.torch.sensitivity.hessian import HessianSensitivity
from optuna_quant.backends.torch.sensitivity.op_error import OpErrorSensitivity


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence
    from typing import Any

    from optuna_quant.backends.base import CandidateModel
    from optuna_quant.backends.calibration.samples import Samples
    from optuna_quant.backends.sensitivity.curvature import Loss
    from optuna_quant.backends.torch.sensitivity.variants import Variants
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True, eq=False)
class SensitivityMaker:
    """Makes sensitivities; their other arguments are those of their classes.

    Args:
        simulated:
            Gives the simulation of a configuration.
        variants:
            The ways in which ops can be switched.
        inputs:
            The inputs of the program.
        samples:
            The calibration data and those given in their place.
    """

    simulated: Callable[[QuantConfig], CandidateModel]
    variants: Variants
    inputs: Sequence[InputSpec]
    samples: Samples

    def best(self, *, samples: int, outputs: Sequence[str] | None) -> OpErrorSensitivity | None:
        """By gradients where that can be had, otherwise :meth:`op_error`; None without data."""
        if self.samples.calibration is None:
            tell_without_data()
            return None
        piece = next(self.samples.calibration.pieces([1]))
        why = why_not_differentiable(self.variants.program, piece.feed, outputs)
        if not why:
            return self.gradient(None, samples=samples, probes=2, outputs=outputs)
        tell_without_gradients(why)
        return self.op_error(None, samples=samples)

    def op_error(self, data: object, **options: Any) -> OpErrorSensitivity:
        """By the error of each op's own output."""
        return OpErrorSensitivity(self.variants, self.samples.to_run_on(data), **options)

    def output(self, data: object, **options: Any) -> OutputSensitivity:
        """By how far the quantization of each op moves the model's outputs."""
        return OutputSensitivity(self.simulated, self.samples.to_run_on(data), **options)

    def gradient(self, data: object, **options: Any) -> GradientSensitivity:
        """By how far the error of each op moves the model's outputs."""
        return GradientSensitivity(self.variants, self.samples.to_run_on(data), **options)

    def hessian(
        self,
        data: object,
        *,
        loss: Loss | None,
        outputs: Sequence[str] | None,
        labels: object,
        **options: Any,
    ) -> HessianSensitivity:
        """By the curvature of a loss, or of how far some outputs move, in the ops' weights."""
        program = self.variants.program
        if loss is None and outputs is not None:
            loss = partial(output_change, names=chosen_outputs(program, outputs))
        return HessianSensitivity(
            program,
            self.inputs,
            self.samples.to_run_on(None) if data is None else data,
            CurvatureOptions(loss=loss, **options),
            labels=labels,
            constants=self.samples.reader.constants,
        )
