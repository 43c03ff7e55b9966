"""From a configuration to a plan: the numbers that each op computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.ranges.missing_ranges import MissingRanges
from optuna_quant.backends.ranges.tensor_range import NoRangeError
from optuna_quant.backends.torch.candidates.plan import ModelPlan
from optuna_quant.backends.torch.candidates.plan import OpPlan
from optuna_quant.backends.torch.options import check_option


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.torch.calibration import ProgramCalibration
    from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig


_MOST_NAMED = 3


class Planner:
    """Makes plans of configurations.

    Args:
        ops:
            The ops of the program, by name.
        program:
            The content hash of the program.
        calibration:
            The calibration of the program.
        weights:
            Its quantized weights.
        has_data:
            Whether there are calibration data.

    Attributes:
        missing_ranges:
            Which ops stay in floats because calibration gives them no range.
    """

    def __init__(
        self,
        ops: Mapping[str, TorchOp],
        program: str,
        calibration: ProgramCalibration,
        weights: QuantizedWeights,
        *,
        has_data: bool,
    ) -> None:
        self._ops = ops
        self._program = program
        self._calibration = calibration
        self._weights = weights
        self._has_data = has_data
        self.missing_ranges = MissingRanges(warn_user)

    def check(self, config: QuantConfig) -> None:
        """Check that a configuration fits the program.

        Raises:
            ValueError:
                If it names an op or an option that does not exist, or a recipe.
        """
        if config.recipes:
            names = ", ".join(map(repr, config.recipes))
            raise ValueError(f"There are no recipes in this backend, but the config has {names}.")
        for name, op_config in config.ops.items():
            if name not in self._ops:
                raise ValueError(f"There is no op {name!r} in the model.{self._meant(name)}")
            check_option(self._ops[name], op_config, has_data=self._has_data)

    def _meant(self, name: str) -> str:
        """What a name that no op has may stand for: ops of that module, or an op inside of one."""
        found = [op for op in self._ops if op.startswith(f"{name}.") or op.endswith(f".{name}")]
        if not found:
            return did_you_mean(name, self._ops)
        return f" Did you mean {' or '.join(map(repr, found[:_MOST_NAMED]))}?"

    def plan(self, config: QuantConfig) -> ModelPlan:
        """How each op runs.

        Ops in static mode at a tensor to which calibration gives no range run in FP32, with a
        warning.

        Raises:
            ValueError:
                As :meth:`check`.
        """
        self.check(config)
        found = {}
        missing = {}
        for name, op_config in config.ops.items():
            if op_config.mode == "fp32":
                continue
            try:
                found[name] = self._planned(self._ops[name], op_config, config.calibration_size)
            except NoRangeError as error:
                missing[name] = error, ""
        self.missing_ranges.add(missing)
        return ModelPlan(self._program, found)

    def _planned(self, op: TorchOp, config: OpConfig, size: int | None) -> OpPlan:
        activations = []
        dynamic = None
        if config.mode == "static" and config.activation is not None:
            for source in op.sources:
                activations.append(self._calibration.params(source, config.activation, size))
        elif config.activation is not None:
            dynamic = config.activation.dtype, config.activation.scheme
        weight = None if config.weight is None else self._weights.get(op, config.weight, size)
        return OpPlan(op, config.mode, tuple(activations), weight, dynamic)
