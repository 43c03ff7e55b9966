"""What a configuration makes of each op: values from which all else is built."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
import hashlib
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna_quant.backends.ranges.ranges import quantized_limits


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.ranges.qparams import Params
    from optuna_quant.backends.torch.candidates.weights import ChannelWeight
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight

    AnyWeight: TypeAlias = "ChannelWeight | GroupedWeight"


@dataclass(frozen=True, eq=False)
class OpPlan:
    """How one op runs; ops in FP32 have none.

    Args:
        op:
            The op.
        mode:
            ``"static"``, ``"dynamic"``, ``"weight_only"`` or ``"bf16"``.
        activations:
            Scale and zero point of each activation, in static mode.
        weight:
            The quantized weight; None if it has none, or has it in floats.
        dynamic:
            The integer type and the scheme of the activation, in dynamic mode.
    """

    op: TorchOp
    mode: str
    activations: tuple[Params, ...] = ()
    weight: AnyWeight | None = None
    dynamic: tuple[str, str] | None = None

    @property
    def content(self) -> str:
        """All that the op computes with, as text."""
        params = [(float(p.scale).hex(), p.zero_point, p.dtype) for p in self.activations]
        weight = "" if self.weight is None else self.weight.digest.hex()
        return repr((self.op.name, self.mode, params, weight, self.dynamic))


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """How a whole model runs.

    Args:
        program:
            The content hash of the program.
        ops:
            The ops that are not in FP32, by name.
    """

    program: str
    ops: Mapping[str, OpPlan] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A content hash of what the model computes, the same in every process."""
        found = hashlib.sha256(self.program.encode())
        for name in sorted(self.ops):
            found.update(self.ops[name].content.encode())
        return found.hexdigest()


def limits_of(dtype: str) -> tuple[int, int]:
    """The least and the largest integer of an activation."""
    low, high = quantized_limits(dtype, "asym")
    return int(low), int(high)
