"""Sensitivity by curvature: how fast the loss bends in a weight, times how far it is moved.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import math
import os
from pathlib import Path
from threading import Lock
import time
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.model.graph import tensor_array
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.sensitivity.asked_ops import check_ops
from optuna_quant.backends.onnxruntime.sensitivity.hessian_report import HessianReport
from optuna_quant.backends.onnxruntime.sensitivity.hessian_report import OpTrace
from optuna_quant.backends.onnxruntime.sensitivity.loss_data import count_samples
from optuna_quant.backends.onnxruntime.sensitivity.loss_data import read_batches
from optuna_quant.backends.onnxruntime.sensitivity.op_weights import channel_axis
from optuna_quant.backends.onnxruntime.sensitivity.op_weights import squared_perturbation
from optuna_quant.data.constant_inputs import NO_INPUTS
from optuna_quant.data.constant_inputs import BoundInputs


try:
    import torch
except ImportError as error:
    raise ImportError(
        'Hessian sensitivity needs the package torch: pip install "optuna_quant[torch]".'
    ) from error

from optuna_quant.backends.onnxruntime.sensitivity.hutchinson import block_traces
from optuna_quant.backends.onnxruntime.torch_graph.graph import FloatType
from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph
from optuna_quant.backends.onnxruntime.torch_graph.graph import check_weights
from optuna_quant.backends.onnxruntime.torch_graph.module import ModuleFunction
from optuna_quant.backends.onnxruntime.torch_graph.node import to_tensor


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import onnx

    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig


Tensors: TypeAlias = dict[str, torch.Tensor]

Loss: TypeAlias = Callable[[Tensors, Tensors], torch.Tensor]
"""Takes the model's outputs and a batch; gives the mean over the samples of the batch."""

_logger = get_logger(__name__)


def output_change(
    outputs: Tensors, batch: Tensors, *, names: Collection[str] | None = None
) -> torch.Tensor:
    """Half the squared change of the model's outputs over their power: the default loss.

    The outputs are compared with themselves, held constant, so that value and gradient are zero
    and the Hessian says how far the outputs move with a weight. It needs no labels, fits every
    task, and no block of it has a negative trace. Outputs that are not of floats are left out, and
    so are those without one of the names, where names are given.
    """
    total = torch.zeros(())
    for name, output in outputs.items():
        if output.is_floating_point() and (names is None or name in names):
            fixed = output.detach()
            power = torch.sum(fixed * fixed).clamp(min=1e-30)
            total = total.to(output) + 0.5 * torch.sum((output - fixed) ** 2) / power
    return total


class HessianSensitivity:
    """Scores ops by the curvature of a loss in their weights, as HAWQ-V2 does.

    The score of an op is the average trace of the Hessian of the loss in the op's weight (the
    trace over the number of values), times the squared L2 norm of what quantization changes of
    that weight: Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural
    Networks", 2020, section 3. Half of it is the loss that the quantized weight adds, as far as
    the errors in the weight are independent of the directions in which the loss is steep.
    Quantized activations are not looked at.

    The traces are estimated with random probes, for all ops at once, at the first call; see
    :func:`~optuna_quant.backends.onnxruntime.sensitivity.hutchinson.block_traces`. They do not
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
            differentiable in the outputs. None for :func:`output_change`.
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
        for name, number, least in (
            ("probes", probes, 2),
            ("seed", seed, 0),
            ("max_samples", max_samples, 1),
            ("batch_size", batch_size, 1),
        ):
            _check_integer(name, number, least)
        _check_options(tolerance, dtype, loss)
        self._loss = output_change if loss is None else loss
        self._probes, self._tolerance, self._seed = probes, tolerance, seed
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
        self._perturbations: dict[tuple[str, TensorConfig], float] = {}
        self._report: HessianReport | None = None
        self._lock = Lock()

        inputs = input_specs(model)
        arrays = read_batches(
            data,
            inputs,
            labels=labels,
            max_samples=max_samples,
            batch_size=batch_size,
            constants=constants,
        )
        varying = constants.varying(inputs)
        self._sizes = [count_samples(batch, varying) for batch in arrays]
        own = {spec.name for spec in inputs}
        self._batches = [_as_tensors(batch, own, dtype) for batch in arrays]
        if (module is None) != (parameters is None):
            raise ValueError("module= and parameters= must be given together.")
        self._model: TorchGraph | ModuleFunction
        if module is None or parameters is None:
            self._model = TorchGraph(model, weights=weights, base_dir=base_dir, dtype=dtype)
        else:
            self._model = self._module_function(
                module, parameters, model, [s.name for s in inputs]
            )
        if self._weights:
            self._evaluate(0)  # a loss that does not fit is found now

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
        with self._lock:
            if self._report is None:
                self._report = self._estimate()
            return self._report

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
        check_ops(config, ops)
        bare = [op for op in ops if op not in self._weights]
        if bare:
            _logger.info(f"{len(bare)} ops have no weight and score zero: {', '.join(bare)}.")
        scores = dict.fromkeys(ops, 0.0)
        for op in scores:
            weight = config.ops[op].weight
            if op in self._weights and weight is not None:
                if op not in self._model.leaves:
                    raise ValueError(f"parameters must name the module's parameter of op {op!r}.")
                scores[op] = self.report.ops[op].average * self._perturbation(op, weight)
        return scores

    def _perturbation(self, op: str, config: TensorConfig) -> float:
        key = (op, config)
        if key not in self._perturbations:
            array = tensor_array(self._tensors[self._weights[op]], self._base_dir)
            try:
                found = squared_perturbation(array, config, self._axes[op])
            except ValueError as error:
                raise ValueError(f"The weight of op {op!r} as {config.label}: {error}") from error
            self._perturbations[key] = found
        return self._perturbations[key]

    def _estimate(self) -> HessianReport:
        started = time.perf_counter()
        samples = sum(self._sizes)
        # Ops may share a parameter of a module.
        distinct: dict[str, torch.Tensor] = {}
        position: dict[int, int] = {}
        for op, leaf in self._model.leaves.items():
            if id(leaf) not in position:
                position[id(leaf)] = len(distinct)
                distinct[op] = leaf
        ops: dict[str, OpTrace] = {}
        probes = 0
        if distinct:
            _logger.info(
                f"Estimating how the loss bends in {len(distinct)} weights, with at most "
                f"{self._probes} random probes on {samples} samples; once for the study."
            )
            losses = [
                (size / samples, lambda i=i: self._evaluate(i))
                for i, size in enumerate(self._sizes)
            ]
            found = block_traces(
                losses,
                distinct,
                probes=self._probes,
                tolerance=self._tolerance,
                seed=self._seed,
            )
            probes = found.probes
            trace, error = found.trace.tolist(), found.standard_error.tolist()
            converged = found.converged(self._tolerance).tolist()
            for op, leaf in self._model.leaves.items():
                i = position[id(leaf)]
                ops[op] = OpTrace(
                    self._weights[op], leaf.numel(), trace[i], error[i], converged[i]
                )
        report = HessianReport(MappingProxyType(ops), probes, samples, self._seed, self._tolerance)
        open_ops = sum(not op.converged for op in ops.values())
        _logger.info(
            f"Hessian traces of {len(ops)} weights with {probes} probes on {samples} samples in "
            f"{time.perf_counter() - started:.1f} s; {open_ops} of them are less certain than "
            f"{self._tolerance:.0%}."
        )
        return report

    def _evaluate(self, number: int) -> torch.Tensor:
        """The loss on a batch, as a function of the weights.

        Raises:
            TypeError:
                If it is no tensor.
            ValueError:
                If it is no finite scalar, or does not depend on any weight.
        """
        batch = self._batches[number]
        with torch.inference_mode(False), torch.enable_grad():
            outputs = self._model(batch)
            value = self._loss(outputs, dict(batch))
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"The loss must give a tensor with one value, but gave a {type(value).__name__}."
            )
        if value.numel() != 1:
            raise ValueError(
                f"The loss must give one value, but gave a tensor of shape {tuple(value.shape)}: "
                "take the mean over the samples."
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"The loss is {value.item()} on batch {number} of the data.")
        if not value.requires_grad:
            raise ValueError(
                "The loss does not depend on the weights: compute it in torch from the outputs, "
                f"{', '.join(outputs)}, without detach() or numpy."
            )
        return value.reshape(())


def _check_integer(name: str, number: object, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{name} must be an integer of at least {least}, but got {number!r}.")


def _check_options(tolerance: float, dtype: object, loss: object) -> None:
    if not 0.0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a number of at least 0, but got {tolerance!r}.")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', but got {dtype!r}.")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss must be a function of outputs and batch, but got {loss!r}.")


def _as_tensors(
    batch: Mapping[str, NDArray[Any]], inputs: Collection[str], dtype: FloatType
) -> Tensors:
    """A batch as torch takes it: the model's inputs, and what only the loss reads."""
    floats = torch.float64 if dtype == "float64" else torch.float32
    return {
        name: to_tensor(array, floats) if name in inputs else _for_loss(array, floats)
        for name, array in batch.items()
    }


def _for_loss(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """An array that only the loss reads; torch takes 64-bit labels only."""
    tensor = to_tensor(array, dtype)
    return tensor if array.dtype.kind in "bf" else tensor.to(torch.int64)
