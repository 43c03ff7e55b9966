"""Replace FP32 by something cheaper of 16 bits in the ops that need more than 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.samplers._plans.grow import Change
from optuna_quant.samplers._plans.grow import Growth
from optuna_quant.samplers._plans.halving import grow_few
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_ACTIVATION_BITS = 16


def cheaper_fallback(space: TuningSpace, config: QuantConfig, base: QuantConfig) -> Growth:
    """Run as many of the ops in FP32 as the criterion allows in options of 16 bits.

    The options come in the order of what they cost: activations of 16 bits in an op that stays
    quantized, then bfloat16, then float16 (the order of neural-compressor 2). Of each, all ops
    that are still in FP32 and have it are tried together; if that breaks the criterion, parts of
    them, see :func:`~optuna_quant.samplers._plans.halving.grow_by_halves`. Nothing is evaluated
    where no op has such an option. A model that is in floats alone is left as it is, since no
    configuration without a quantized op is an answer.

    Args:
        space:
            The tuning space.
        config:
            The configuration to start from; it meets the criterion.
        base:
            What the ops are quantized to, for the weights beside activations of 16 bits.

    Returns:
        The configuration with the options that hold together.
    """
    for stage, options in (
        ("16-bit activations", _with_wide_activations(space, base)),
        ("bf16 instead of fp32", _in_mode(space, "bf16")),
        ("fp16 instead of fp32", _in_mode(space, "fp16")),
    ):
        changes = [(t, option) for t, option in options if config.ops[t.ops[0]] == FP32]
        if config.quantized_ops or any(option.is_quantized for _, option in changes):
            config = yield from grow_few(stage, config, changes)
    return config


def float_modes(space: TuningSpace) -> list[str]:
    """The floating-point modes of a space, the cheapest first, as neural-compressor 2 has them."""
    have = {option.mode for tunable in space.tunables for option in tunable.fallbacks}
    return [mode for mode in ("bf16", "fp16", "fp32") if mode in have]


def suffix_of(mode: str) -> str:
    """What the names of stages in a floating-point mode end with."""
    return "" if mode == FP32.mode else f" ({mode})"


def _in_mode(space: TuningSpace, mode: str) -> list[Change]:
    """The ops that have a floating-point mode, with it."""
    option = OpConfig(mode)
    return [(tunable, option) for tunable in space.tunables if option in tunable.fallbacks]


def _with_wide_activations(space: TuningSpace, base: QuantConfig) -> list[Change]:
    """The ops that have activations of 16 bits, with them, and with the weights of ``base``.

    Where there are none with those weights it is the first; ops that have 16 bits in ``base``
    are left out, because these are what was not enough.
    """
    changes = []
    for tunable in space.tunables:
        usual = base.ops[tunable.ops[0]]
        found = [option for option in tunable.quantized if _is_wide(option)]
        if found and not _is_wide(usual):
            option = min(found, key=lambda option: option.weight != usual.weight)
            changes.append((tunable, option))
    return changes


def _is_wide(option: OpConfig) -> bool:
    return option.activation is not None and option.activation.bits == _ACTIVATION_BITS
