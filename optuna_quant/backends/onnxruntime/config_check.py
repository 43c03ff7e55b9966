"""Checks that a configuration fits a model and its target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.static.ops import check_static
from optuna_quant.backends.onnxruntime.targets.table import CPU
from optuna_quant.backends.onnxruntime.weight_only.ops import check_weight_only


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True, eq=False)
class ConfigCheck:
    """What configurations a model can be built from.

    Args:
        op_types:
            The op types of all its nodes, as in the tuning space, by name.
        static:
            The ops that can be quantized statically, by name.
        weight_only:
            The ops whose weights alone can be quantized, by name.
        profile:
            What the target runs.
    """

    op_types: Mapping[str, str]
    static: Mapping[str, StaticOp]
    weight_only: Mapping[str, WeightOnlyOp]
    profile: TargetProfile

    def check(self, config: QuantConfig) -> None:
        """Check the ops of a configuration; its recipes are checked where they are applied.

        Raises:
            ValueError:
                If it names an op that the model does not have, a mode that an op does not have or
                a form that the target does not run.
        """
        for name, op_config in config.ops.items():
            if name not in self.op_types:
                raise ValueError(f"There is no op {name!r} in the model.")
            self._check_op(name, op_config)

    def _check_op(self, name: str, config: OpConfig) -> None:
        if config.mode == "static":
            if name not in self.static:
                raise ValueError(f"Op {name!r} cannot run in static mode{self._on_target}.")
            check_static(self.static[name], config)
            self._check_target(name, self.static[name].op_type, config)
        elif config.mode == "weight_only":
            if name not in self.weight_only:
                raise ValueError(f"Op {name!r} cannot run in weight_only mode{self._on_target}.")
            check_weight_only(self.weight_only[name], config)
            self._check_target(name, self.weight_only[name].op_type, config)
        elif config.mode == "dynamic":
            self._check_target(name, "", config)
        elif config.mode not in self.profile.fallbacks_of(self.op_types[name]):
            have = [*(("static",) if self.static else ())]
            have += ["dynamic"] if self.profile.dynamic else []
            have += ["weight_only"] if self.profile.weight_only_bits else []
            raise ValueError(
                f"Op {name!r} cannot run in mode {config.mode!r}: there are "
                f"{', '.join([*have, *self.profile.fallbacks_of(self.op_types[name])])}"
                f"{self._on_target}."
            )

    def _check_target(self, name: str, op_type: str, config: OpConfig) -> None:
        # More is possible on the CPU than its own profile says.
        if not self._is_usual and not self.profile.allows(op_type, config):
            raise ValueError(
                f"Op {name!r} cannot run as {config.label!r}: the target "
                f"{self.profile.name!r} does not run it so."
            )

    @cached_property
    def _is_usual(self) -> bool:
        return self.profile == CPU

    @property
    def _on_target(self) -> str:
        return "" if self._is_usual else f" on the target {self.profile.name!r}"
