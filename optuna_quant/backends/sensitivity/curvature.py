"""The curvature of a loss in the weights of ops.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from threading import Lock
import time
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Protocol
from typing import TypeAlias

from optuna.logging import get_logger
import torch

from optuna_quant.backends.sensitivity.asked_ops import check_ops
from optuna_quant.backends.sensitivity.hessian_report import HessianReport
from optuna_quant.backends.sensitivity.hessian_report import OpTrace
from optuna_quant.backends.sensitivity.hutchinson import block_traces
from optuna_quant.backends.sensitivity.loss_data import count_samples
from optuna_quant.backends.sensitivity.loss_data import read_batches
from optuna_quant.backends.sensitivity.tensors import FloatType
from optuna_quant.backends.sensitivity.tensors import Tensors
from optuna_quant.backends.sensitivity.tensors import batch_tensors


if TYPE_CHECKING:
    from optuna_quant.backends.sensitivity.perturbation import WeightPerturbations
    from optuna_quant.data.constant_inputs import BoundInputs
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.space.config import QuantConfig


Loss: TypeAlias = Callable[[Tensors, Tensors], torch.Tensor]
"""Takes the model's outputs and a batch; gives the mean over the samples of the batch."""

_logger = get_logger(__name__)


class WeightFunction(Protocol):
    """A model as a function of the weights of its ops."""

    @property
    def leaves(self) -> Mapping[str, torch.Tensor]:
        """The weight of each op, which may be that of another as well; they require gradients."""
        ...

    def __call__(self, feed: Tensors, /) -> Tensors:
        """The outputs by name, for the inputs by name; what is no input is ignored."""
        ...


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


@dataclass(frozen=True)
class CurvatureOptions:
    """How the curvature is estimated.

    Args:
        loss:
            The loss; None for :func:`output_change`.
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
            The most samples at a time.
        dtype:
            The type of all computations, ``"float32"`` or ``"float64"``.

    Raises:
        TypeError:
            If the loss is no function.
        ValueError:
            If one of the others is not as described.
    """

    loss: Loss | None = None
    probes: int = 32
    tolerance: float = 0.2
    seed: int = 0
    max_samples: int = 64
    batch_size: int = 16
    dtype: FloatType = "float32"

    def __post_init__(self) -> None:
        for name, least in (("probes", 2), ("seed", 0), ("max_samples", 1), ("batch_size", 1)):
            _check_integer(name, getattr(self, name), least)
        _check_options(self.tolerance, self.dtype, self.loss)


@dataclass(frozen=True, eq=False)
class LossBatches:
    """What a loss is computed on.

    Args:
        tensors:
            The batches: the inputs of the model, and what the loss reads.
        sizes:
            How many samples each has.
    """

    tensors: Sequence[Tensors]
    sizes: Sequence[int]

    @classmethod
    def read(
        cls,
        data: object,
        inputs: Sequence[InputSpec],
        options: CurvatureOptions,
        *,
        labels: object,
        constants: BoundInputs,
    ) -> LossBatches:
        """Read the first samples of data, see :func:`read_batches`.

        Args:
            data:
                The data.
            inputs:
                The inputs of the model.
            options:
                How many samples are used, in which batches, and as what type.
            labels:
                The labels of the samples; None if the data hold what the loss reads.
            constants:
                Inputs that are the same for all samples.

        Raises:
            TypeError:
                If the data are of another type.
            ValueError:
                If the data do not fit the model.
        """
        arrays = read_batches(
            data,
            inputs,
            labels=labels,
            max_samples=options.max_samples,
            batch_size=options.batch_size,
            constants=constants,
        )
        names = {spec.name for spec in inputs}
        varying = constants.varying(inputs)
        with torch.inference_mode(False):
            tensors = [batch_tensors(batch, names, options.dtype) for batch in arrays]
        return cls(tensors, [count_samples(batch, varying) for batch in arrays])


class LossCurvature:
    """Scores ops by the curvature of a loss in their weights.

    Args:
        function:
            The model.
        batches:
            What it is run on, with what the loss reads.
        weights:
            What the weight of each op is called, also of ops that are not scored, by op.
        perturbations:
            Gives how far quantization moves a weight.
        options:
            How the curvature is estimated.

    Raises:
        TypeError:
            If the loss does not give a tensor.
        ValueError:
            If it is not a finite scalar or does not depend on the weights.
    """

    def __init__(
        self,
        function: WeightFunction,
        batches: LossBatches,
        *,
        weights: Mapping[str, str],
        perturbations: WeightPerturbations,
        options: CurvatureOptions,
    ) -> None:
        self._function = function
        self._batches, self._sizes = batches.tensors, batches.sizes
        self._weights = weights
        self._perturbations = perturbations
        self._loss = output_change if options.loss is None else options.loss
        self._probes, self._tolerance = options.probes, options.tolerance
        self._seed = options.seed
        self._report: HessianReport | None = None
        self._lock = Lock()
        if self._weights:
            self._evaluate(0)  # a loss that does not fit is found now

    @property
    def report(self) -> HessianReport:
        """The traces and how they were found; computed if they are not yet."""
        with self._lock:
            if self._report is None:
                self._report = self._estimate()
            return self._report

    def scores(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """Score ops of a configuration.

        Args:
            config:
                The configuration.
            ops:
                Their names.

        Raises:
            ValueError:
                If an op is not in the configuration, its weight is not one of the function's, or
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
                if op not in self._function.leaves:
                    raise ValueError(f"parameters must name the module's parameter of op {op!r}.")
                scores[op] = self.report.ops[op].average * self._perturbations.of(op, weight)
        return scores

    def _estimate(self) -> HessianReport:
        started = time.perf_counter()
        samples = sum(self._sizes)
        # Ops may share a parameter of a module.
        distinct: dict[str, torch.Tensor] = {}
        position: dict[int, int] = {}
        for op, leaf in self._function.leaves.items():
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
            for op, leaf in self._function.leaves.items():
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
            outputs = self._function(batch)
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
