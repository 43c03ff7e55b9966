"""Sensitivity by gradients: how the error of each quantized op moves the model's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant._common.counts import check_positive
from optuna_quant.backends.sensitivity.output_gradients import output_gradients
from optuna_quant.backends.torch.graph.recording import OpRecorder
from optuna_quant.backends.torch.sensitivity.op_error import OpErrorSensitivity
from optuna_quant.data.outputs import choose_outputs


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.sensitivity.output_gradients import Gradients
    from optuna_quant.backends.torch.graph.recording import Recording
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch.sensitivity.op_error import Plans
    from optuna_quant.backends.torch.sensitivity.variants import Variant


class GradientSensitivity(OpErrorSensitivity):
    """How far the quantization of each op moves the model's outputs, to first order.

    One pass over the samples runs the float program and gives the error of each op's own output
    (see :class:`~optuna_quant.backends.torch.sensitivity.op_error.OpErrorSensitivity`); one
    backward pass per probe gives the gradient there of a random projection of the model's
    outputs. The square of their product, averaged over samples and probes, is the squared move of
    the outputs that this error alone brings about, as far as it is linear: the Gauss-Newton
    (Fisher) form of the second-order Taylor term, for the squared error of the outputs (Hassibi
    and Stork, "Second order derivatives for network pruning", 1992). It is divided by the
    variance of the outputs.

    So scores of different layers, and of different options of one op, are in one unit and can be
    added. They need no labels.

    Args:
        outputs:
            The names of the outputs that are looked at; None for all.
        probes:
            How many random projections are used for each batch.
        seed:
            The seed of the projections.
        **kwargs:
            See :class:`~optuna_quant.backends.torch.sensitivity.op_error.OpErrorSensitivity`.

    Raises:
        ValueError:
            If ``probes`` is not a positive number, or there is no output of a name.
    """

    what = "the effect of their errors on the model's outputs"

    def __init__(
        self,
        *args: Any,
        outputs: Sequence[str] | None = None,
        probes: int = 4,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("probes", probes)
        self._outputs = chosen_outputs(self._variants.program, outputs)
        self._probes = probes
        self._seed = seed
        self.key = f"gradient, {self.key}, probes={probes}, seed={seed}"
        if outputs is not None:
            self.key += f", outputs={list(self._outputs)}"

    def _errors(self, plans: Plans) -> dict[Variant, float]:
        sums = dict.fromkeys(plans, 0.0)
        generator = torch.Generator().manual_seed(self._seed)
        samples = 0
        for run in self._runs(plans, gradients=True):
            gradients = _gradients(run.recording, self._outputs, self._probes, generator)
            samples += gradients.samples
            for variant, values in run.outputs():
                error = torch.nan_to_num(values - run.exact(variant), posinf=0.0, neginf=0.0)
                sums[variant] += gradients.moved(variant.op, error)
        return {variant: total / max(samples, 1) for variant, total in sums.items()}


def chosen_outputs(program: SwitchedProgram, names: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs that are looked at.

    Raises:
        ValueError:
            If the program has no output of a name.
    """
    known = program.form.output_names
    return tuple(known) if names is None else choose_outputs(tuple(names), known)


def why_not_differentiable(
    program: SwitchedProgram, feed: Feed, outputs: Sequence[str] | None
) -> str:
    """Why the outputs cannot be differentiated by what ops give; empty if they can.

    Args:
        program:
            The program.
        feed:
            A sample.
        outputs:
            The names of the outputs that are looked at; None for all.

    Raises:
        ValueError:
            If the program has no output of a name.
    """
    recorder = OpRecorder(program, {op.name for op in program.ops})
    chosen = chosen_outputs(program, outputs)
    try:
        recording = recorder.record(feed, gradients=True)
        found = _gradients(recording, chosen, 1, torch.Generator().manual_seed(0))
    except (RuntimeError, NotImplementedError) as error:
        return f"the program cannot be differentiated: {str(error).splitlines()[0]}"
    if not any(each is not None for probe in found.probes for each in probe.values()):
        return "no output of floats depends on an op in a way that can be differentiated"
    return ""


def _gradients(
    recording: Recording, outputs: Sequence[str], probes: int, generator: torch.Generator
) -> Gradients:
    with torch.inference_mode(False), torch.enable_grad():
        return output_gradients(
            [recording.outputs[name] for name in outputs],
            {name: record.output for name, record in recording.ops.items()},
            probes=probes,
            generator=generator,
        )
