"""The settings that neural-compressor 2 tries first where weights alone are quantized."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.space.config import FP32
from optuna_quant.space.presets import Preset


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.space.config import OpConfig


@dataclass(frozen=True)
class _Setting:
    name: str
    algorithm: str
    group_size: int
    without_last: bool = False

    def option(self, options: Sequence[OpConfig]) -> OpConfig:
        """The op's option of this kind, in groups of this size or its usual one, or its default.

        All are of 4 bits with zero points, like the default, and compute as that does.
        """
        default = options[0]
        alike = [option for option in options if self._is_like(option, default)]
        sizes = {_group_size(option): option for option in alike}
        return sizes.get(self.group_size, alike[0] if alike else default)

    def _is_like(self, option: OpConfig, default: OpConfig) -> bool:
        weight, usual = option.weight, default.weight
        return (
            weight is not None
            and usual is not None
            and (weight.dtype, weight.scheme) == (usual.dtype, usual.scheme)
            and weight.algorithm == self.algorithm
            and option.accuracy_level == default.accuracy_level
        )


_SETTINGS = (
    _Setting("RTN_G32ASYM", "rtn", 32),
    _Setting("GPTQ_G32ASYM", "gptq", 32),
    _Setting("GPTQ_G32ASYM_DISABLE_LAST_MATMUL", "gptq", 32, without_last=True),
    _Setting("GPTQ_G128ASYM", "gptq", 128),
    _Setting("AWQ_G32ASYM", "awq", 32),
)


def weight_only_presets(
    ops: Sequence[WeightOnlyOp], options: Mapping[str, Sequence[OpConfig]], *, has_data: bool
) -> tuple[Preset, ...]:
    """The pre-defined settings, in the order of neural-compressor 2.

    An op that does not have what a setting says keeps its default: an embedding table has neither
    GPTQ nor AWQ, and a weight of at most 128 inputs no groups of 128, but then smaller ones.

    Args:
        ops:
            The ops, in model order.
        options:
            The options of each op, the default first, by the op's name.
        has_data:
            Whether there are calibration data; without them there is neither GPTQ nor AWQ.
    """
    last = next((op.name for op in reversed(ops) if not op.is_table), None)
    presets = []
    for setting in _SETTINGS:
        if setting.algorithm in NEEDS_INPUTS and not has_data:
            continue
        chosen = {name: setting.option(each) for name, each in options.items()}
        if setting.without_last and last is not None:
            chosen[last] = FP32
        presets.append(Preset(setting.name, chosen))
    return tuple(presets)


def _group_size(option: OpConfig) -> int | None:
    return None if option.weight is None else option.weight.group_size
