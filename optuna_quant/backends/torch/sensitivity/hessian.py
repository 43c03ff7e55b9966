"""Sensitivity by curvature: how fast the loss bends in a weight, times how far it is moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.sensitivity.curvature import LossBatches
from optuna_quant.backends.sensitivity.curvature import LossCurvature
from optuna_quant.backends.sensitivity.perturbation import WeightPerturbations
from optuna_quant.backends.torch.graph.run import GraphRun
from optuna_quant.backends.torch.graph.run import plain_kernels
from optuna_quant.backends.torch.graph.slots import Unchanged
from optuna_quant.backends.torch.graph.switched import Switch
from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import BoundInputs


if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.sensitivity.curvature import CurvatureOptions
    from optuna_quant.backends.sensitivity.hessian_report import HessianReport
    from optuna_quant.backends.sensitivity.tensors import Tensors
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.space.config import QuantConfig


class HessianSensitivity:
    """Scores ops by the curvature of a loss in their weights, as HAWQ-V2 does.

    The score of an op is the average trace of the Hessian of the loss in the op's weight (the
    trace over the number of values), times the squared L2 norm of what quantization changes of
    that weight: Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural
    Networks", 2020, section 3. The weight is that with the batch normalization folded in. Half of
    the score is the loss that the quantized weight adds, as far as the errors in the weight are
    independent of the directions in which the loss is steep. Quantized activations are not looked
    at.

    The traces are estimated with random probes, for all ops at once, at the first call; see
    :func:`~optuna_quant.backends.sensitivity.hutchinson.block_traces`. They do not depend on the
    configuration, so each further call costs the perturbations alone. Equal arguments give equal
    scores. :attr:`report` says how well the traces are known.

    Ops without a weight score zero, and so do those that are not quantized. A trace is negative
    where the loss bends downwards, as it can for a model that is not at a minimum of the loss;
    then so is the score.

    Args:
        program:
            The float program.
        inputs:
            Its inputs.
        data:
            A dict of arrays that hold the whole set, samples along the first axis, or an iterable
            over batches (dicts of arrays). Arrays that are not inputs of the model are for the
            loss.
        options:
            The loss, and how the curvature is estimated. ``loss(outputs, batch)`` gives a scalar
            tensor, the mean over the samples of a batch, from the model's outputs and the batch,
            both dicts of tensors. It must be twice differentiable in the outputs.
        labels:
            The labels of the samples, in their order; the loss finds them as ``batch["labels"]``.
            Integers become 64-bit ones.
        constants:
            Inputs that are the same for all samples; the data need not hold them.

    Raises:
        TypeError:
            If the data are of another type, or the loss does not give a tensor.
        ValueError:
            If the data do not fit the model, or the loss is not a finite scalar or does not
            depend on the weights.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        inputs: Sequence[InputSpec],
        data: object,
        options: CurvatureOptions,
        *,
        labels: object = None,
        constants: BoundInputs = NO_INPUTS,
    ) -> None:
        read = LossBatches.read(data, inputs, options, labels=labels, constants=constants)
        self._program = program
        self._ops = {op.name: op for op in program.ops if op.weight is not None}
        with torch.inference_mode(False):
            function = FunctionOfWeights(program, double=options.dtype == "float64")
        tensors = [{n: t.to(program.device) for n, t in batch.items()} for batch in read.tensors]
        self._curvature = LossCurvature(
            function,
            LossBatches(tensors, read.sizes),
            weights={name: str(op.weight) for name, op in self._ops.items()},
            perturbations=WeightPerturbations(self._weight),
            options=options,
        )

    @property
    def report(self) -> HessianReport:
        """The traces and how they were found; computed if they are not yet."""
        return self._curvature.report

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """Score ops of a configuration.

        Args:
            config:
                The configuration.
            ops:
                Their names.

        Raises:
            ValueError:
                If an op is not in the configuration, or its weight cannot be quantized so; or if
                the Hessian is not finite.
        """
        return self._curvature.scores(config, ops)

    def _weight(self, name: str) -> tuple[NDArray[Any], int | None]:
        op = self._ops[name]
        return self._program.weight(op).detach().cpu().numpy(), op.channel_axis


class FunctionOfWeights:
    """The float program as a function of the weights of its ops, batch normalization folded in.

    Args:
        program:
            The program.
        double:
            Whether it computes in float64.

    Attributes:
        leaves:
            The weight of each op; ops that share one have one each.
    """

    def __init__(self, program: SwitchedProgram, *, double: bool = False) -> None:
        self._program = program
        self._dtype = torch.float64 if double else torch.float32
        self.leaves: dict[str, torch.Tensor] = {}
        switch = Switch()
        if double:
            for name, tensor in program.original.named_buffers():
                is_float = tensor.dtype == torch.float32
                switch.tensors[name] = tensor.double() if is_float else tensor
        for op in program.ops:
            slots = program.slots[op.name]
            if slots.weight is None:
                continue
            leaf = program.weight(op).detach().to(self._dtype).clone().requires_grad_()
            self.leaves[op.name] = switch.tensors[slots.weight] = leaf
            if slots.bias is not None:
                bias = program.bias(op)
                switch.tensors[slots.bias] = None if bias is None else bias.to(self._dtype)
            if slots.batch_norm is not None:
                switch.modules[slots.batch_norm] = Unchanged()
        self._graph = program.switched(switch)

    def __call__(self, feed: Tensors) -> Tensors:
        """The outputs by name, for the inputs by name; what is no input is ignored."""
        with plain_kernels(self._graph):
            run = GraphRun(self._graph, self._dtype)
            outputs = run.run(*self._program.inputs_of_call(feed))
        return self._program.named_outputs(outputs)
