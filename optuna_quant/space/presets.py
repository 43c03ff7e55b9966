"""Pre-defined settings of a whole model, which staged strategies try before others."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from optuna_quant.space.tunable import Tunable


@dataclass(frozen=True)
class Preset:
    """A way to quantize the whole model that is known to work well.

    Args:
        name:
            What it is called, such as ``"GPTQ_G32ASYM"``.
        ops:
            The option of each op, by the op's name. Those that it does not name, or that do not
            have the option in a tuning space, keep their default.
    """

    name: str
    ops: Mapping[str, OpConfig] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", MappingProxyType(dict(self.ops)))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, dict(self.ops))

    def config(self, default: QuantConfig, tunables: Iterable[Tunable]) -> QuantConfig:
        """What it is in a tuning space; ops that are tied need the same option.

        Args:
            default:
                The default of the space.
            tunables:
                The ops of the space.
        """
        config = default
        for tunable in tunables:
            wanted = {self.ops.get(op) for op in tunable.ops}
            option = wanted.pop()
            if not wanted and option is not None and option in tunable.options:
                config = tunable.set(config, option)
        return config
