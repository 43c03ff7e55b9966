"""Sensitivity by curvature: how fast the loss bends in a weight, times how far it is moved.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import math
import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.extras import install_hint
from optuna_quant.backends.onnxruntime.model.graph import tensor_array
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.sensitivity.op_weights import channel_axis
from optuna_quant.backends.sensitivity.perturbation import WeightPerturbations
from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import BoundInputs


try:
    import torch
except ImportError as error:
    raise ImportError(
        f"Hessian sensitivity needs the package torch: {install_hint('torch')}."
    ) from error

from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph
from optuna_quant.backends.onnxruntime.torch_graph.graph import check_weights
from optuna_quant.backends.onnxruntime.torch_graph.module import ModuleFunction
from optuna_quant.backends.sensitivity.curvature import CurvatureOptions
from optuna_quant.backends.sensitivity.curvature import LossBatches
from optuna_quant.backends.sensitivity.curvature import LossCurvature


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import onnx

    from optuna_quant.backends.sensitivity.curvature import Loss
    from optuna_quant.backends.sensitivity.hessian_report import HessianReport
    from optuna_quant.backends.sensitivity.tensors import FloatType
    from optuna_quant.space.config import QuantConfig


class HessianSensitivity:
    """Scores ops by the curvature of a loss in their weights, as HAWQ-V2 does.

    The score of an op is the average trace of the Hessian of the loss in the op's weight (the
    trace over the number of values), times the squared L2 norm of what quantization changes of
    that weight: Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural
    Networks", 2020, section 3. Half of it is the loss that the quantized weight adds, as far as
    the errors in the weight are independent of the directions in which the loss is steep.
    Quantized activations are not looked at.

    The traces are estimated with random probes, for all ops at once, at the first call; see
    :func:`~optuna_quant.backends.sensitivity.hutchinson.block_traces`. They do not
    depend on the configuration, so each further call costs the perturbations alone. Equal
    arguments give equal scores. :attr:`report` says how well the traces are known.

    Ops without a weight (products of two activations, say) score zero, and so do those that are
    not quantized. A trace is negative where the loss bends downwards, as it can for a model that
    is not at a minimum of the loss; then so is the score.

    Args:
        model:
            The FP32 model.
        loss:
            ``loss(outputs, batch)`` gives a scalar tensor, the mean over the samples of a batch,
            from the model's outputs and the batch, both dicts of tensors. It must be twice
            differentiable in the outputs. None for
            :func:`~optuna_quant.backends.sensitivity.curvature.output_change`.
        data:
            A dict of arrays that hold the whole set, samples along the first axis, or an iterable
            over batches (dicts of arrays). Arrays that are not inputs of the model are for the
            loss.
        weights:
            The initializer that is the weight of each op, by op name (exactly the node's).
        labels:
            The labels of the samples, in their order; the loss finds them as ``batch["labels"]``.
            Integers become 64-bit ones.
        probes:
            The most random probes, at least 2.
        tolerance:
            Stop when the standard error of every op's trace is at most this part of the trace. 0
            to use all probes.
        seed:
            The seed of the probes.
        max_samples:
            How many samples are used, from the start of the data.
        batch_size:
            The most samples at a time. Smaller batches take longer and give less noisy traces.
        dtype:
            The type of all computations, ``"float32"`` or ``"float64"``.
        base_dir:
            The directory that the model's external data are relative to.
        module:
            The :class:`torch.nn.Module` that ``model`` was exported from, to be differentiated in
            place of the ONNX graph, for instance because that has operators without a torch
            counterpart. It takes the inputs in the model's order, on its own device, is run in
            evaluation mode, and stays as it is.
        parameters:
            Needed with ``module``: the name of the module's parameter that is the weight of each
            op that is to be scored, by op name.
        constants:
            Inputs that are the same for all samples; the data need not hold them.

    Raises:
        TypeError:
            If the data are of another type, or the loss does not give a tensor.
        ValueError:
            If an argument does not fit the model, the loss is not a finite scalar or does not
            depend on the weights, or (an
            :class:`~optuna_quant.backends.onnxruntime.torch_graph.supported.UnsupportedOperatorError`)
            the model has operators without a torch counterpart.

    Example:
        >>> def loss(outputs, batch):
        ...     return torch.nn.functional.cross_entropy(outputs["logits"], batch["labels"])
        >>> sensitivity = HessianSensitivity(  # doctest: +SKIP
        ...     model, loss, {"x": x}, labels=y, weights={"/fc/Gemm": "fc.weight"}
        ... )
        >>> sensitivity(space.default(), ["/fc/Gemm"])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        loss: Loss | None,
        data: object,
        *,
        weights: Mapping[str, str],
        labels: object = None,
        probes: int = 32,
        tolerance: float = 0.2,
        seed: int = 0,
        max_samples: int = 64,
        batch_size: int = 16,
        dtype: FloatType = "float32",
        base_dir: str | os.PathLike[str] | None = None,
        module: torch.nn.Module | None = None,
        parameters: Mapping[str, str] | None = None,
        constants: BoundInputs = NO_INPUTS,
    ) -> None:
        options = CurvatureOptions(loss, probes, tolerance, seed, max_samples, batch_size, dtype)
        self._weights = MappingProxyType(dict(weights))
        check_weights(model, self._weights)
        used = set(self._weights.values())
        self._tensors = {t.name: t for t in model.graph.initializer if t.name in used}
        self._base_dir = None if base_dir is None else Path(base_dir)
        self._axes = {
            node.name: channel_axis(
                node, self._weights[node.name], len(self._tensors[self._weights[node.name]].dims)
            )
            for node in model.graph.node
            if node.name in self._weights
        }
        inputs = input_specs(model)
        batches = LossBatches.read(data, inputs, options, labels=labels, constants=constants)
        if (module is None) != (parameters is None):
            raise ValueError("module= and parameters= must be given together.")
        function: TorchGraph | ModuleFunction
        if module is None or parameters is None:
            function = TorchGraph(model, weights=weights, base_dir=base_dir, dtype=dtype)
        else:
            function = self._module_function(module, parameters, model, [s.name for s in inputs])
        self._curvature = LossCurvature(
            function,
            batches,
            weights=self._weights,
            perturbations=WeightPerturbations(self._weight),
            options=options,
        )

    def _weight(self, op: str) -> tuple[NDArray[Any], int | None]:
        tensor = self._tensors[self._weights[op]]
        return tensor_array(tensor, self._base_dir), self._axes[op]

    def _module_function(
        self,
        module: torch.nn.Module,
        parameters: Mapping[str, str],
        model: onnx.ModelProto,
        inputs: Sequence[str],
    ) -> ModuleFunction:
        unknown = [op for op in parameters if op not in self._weights]
        if unknown or not parameters:
            named = f"there is no op {unknown[0]!r} with a weight" if unknown else "it is empty"
            raise ValueError(
                f"parameters: {named}; the ops with one are {', '.join(map(repr, self._weights))}."
            )
        outputs = [value.name for value in model.graph.output]
        function = ModuleFunction(module, parameters, inputs=inputs, outputs=outputs)
        for op, leaf in function.leaves.items():
            size = math.prod(self._tensors[self._weights[op]].dims)
            if size != leaf.numel():
                raise ValueError(
                    f"parameters: {parameters[op]!r} has {leaf.numel()} values, but the weight of "
                    f"op {op!r}, {self._weights[op]!r}, has {size}."
                )
        return function

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
                If an op is not in the configuration, is not in ``parameters``, or its weight
                cannot be quantized so; or if the Hessian is not finite.
        """
        return self._curvature.scores(config, ops)
