"""Precisions of ops: their names and colours, the same in all plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna_quant.space.config import OpConfig


@dataclass(frozen=True)
class Precision:
    """A class of options that plots do not tell apart.

    Args:
        name:
            What legends call it.
        color:
            Its colour.
    """

    name: str
    color: str


# The colours are those of Okabe and Ito, which people with any colour vision tell apart.
FP32 = Precision("FP32", "#E69F00")
BFLOAT16 = Precision("bfloat16", "#999999")
FLOAT16 = Precision("float16", "#F0E442")
ACTIVATIONS_16 = Precision("16-bit activations", "#CC79A7")
STATIC_8 = Precision("8 bits", "#0072B2")
DYNAMIC_8 = Precision("8 bits, dynamic", "#56B4E9")
WEIGHTS_8 = Precision("8-bit weights", "#009E73")
BITS_4 = Precision("4 bits", "#D55E00")
FEWER_BITS = Precision("2 or 3 bits", "#000000")
UNKNOWN = Precision("not recorded", "#EEEEEE")

PRECISIONS = (
    FP32,
    BFLOAT16,
    FLOAT16,
    ACTIVATIONS_16,
    STATIC_8,
    DYNAMIC_8,
    WEIGHTS_8,
    BITS_4,
    FEWER_BITS,
    UNKNOWN,
)
"""All of them, the highest first."""

_FLOATS = {"fp32": FP32, "bf16": BFLOAT16, "fp16": FLOAT16}


def precision_of(option: OpConfig) -> Precision:
    """The precision of an option: that of its narrowest tensor.

    Args:
        option:
            The option.

    Returns:
        The precision; activations of 16 bits and dynamic quantization are told apart from 8 bits.
    """
    if option.mode in _FLOATS:
        return _FLOATS[option.mode]
    bits = [each.bits for each in (option.activation, option.weight) if each is not None]
    if min(bits) < 4:
        return FEWER_BITS
    if min(bits) < 8:
        return BITS_4
    if option.mode == "weight_only":
        return WEIGHTS_8
    if max(bits) > 8:
        return ACTIVATIONS_16
    return DYNAMIC_8 if option.mode == "dynamic" else STATIC_8


def present(precisions: Iterable[Precision]) -> list[Precision]:
    """Those that occur, each once, in the order of legends.

    Args:
        precisions:
            The precisions.

    Returns:
        The different ones, the highest first.
    """
    found = set(precisions)
    return [each for each in PRECISIONS if each in found]
