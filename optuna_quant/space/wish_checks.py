"""What wishes are refused: what matches nothing, and values that exist nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.space.config import DTYPES
from optuna_quant.space.config import FLOAT_MODES
from optuna_quant.space.config import GRANULARITIES
from optuna_quant.space.config import MODES
from optuna_quant.space.config import SCHEMES
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.wishes import PER_CHANNEL
from optuna_quant.space.wishes import OpDict
from optuna_quant.space.wishes import Wish
from optuna_quant.space.wishes import parse_wishes


Op: TypeAlias = tuple[str, str, Sequence[OpConfig]]
"""The name of an op, its type, and its options."""

_KNOWN: dict[str, tuple[str, ...]] = {
    "dtype": DTYPES + FLOAT_MODES,
    "scheme": SCHEMES,
    "granularity": GRANULARITIES,
    "mode": MODES,
    "algorithm": (
        *("minmax", "percentile", "kl", "mse", "mean_minmax"),  # Of ranges,
        *("rtn", "gptq", "awq", "hqq", "k_quant"),  # and of weights alone,
        *("gptq_mse", "gptq_act", "gptq_act_mse", "hqq_float"),  # with options.
    ),
}

_BITS = tuple(sorted({TensorConfig(dtype).bits for dtype in DTYPES}))


def check_unmatched(
    matched: Mapping[tuple[str, str], list[Op]],
    ops: Sequence[Op],
    known: Mapping[str, Sequence[str]],
) -> None:
    """Refuse what matches nothing at all; warn of what matches no op that is tuned.

    Raises:
        ValueError:
            If a pattern matches no type or name that exists.
    """
    for (source, pattern), found in matched.items():
        if found or not ops:
            continue
        kind, column = ("type", 1) if source == "op_type_dict" else ("name", 0)
        have = some_of(sorted({op[1] for op in ops}) if column else [op[0] for op in ops])
        names = known[source]
        if not any(name == pattern or re.fullmatch(pattern, name) for name in names):
            tuned = [op[1] if column else op[0] for op in ops]
            meant = _prefix_meant(pattern, tuned) or _nearest(pattern, tuned, names)
            raise ValueError(
                f"{source}[{pattern!r}] matches no op {kind}.{meant} The op {kind}s are {have}. "
                f"A key is a regular expression that must match the whole {kind}."
            )
        warn_user(
            f"{source}[{pattern!r}] matches no op that is tuned and is ignored; the {kind}s of "
            f"those are {have}."
        )


def _nearest(pattern: str, tuned: Sequence[str], names: Sequence[str]) -> str:
    # An op that is tuned, unless the name of another one is nearer.
    return did_you_mean(pattern, dict.fromkeys((*tuned, *names)))


def _prefix_meant(pattern: str, names: Sequence[str]) -> str:
    """The expression for all ops of a module, if that is what was given."""
    within = [name for name in names if re.match(rf"{re.escape(pattern)}[./]", name)]
    if not within:
        return ""
    meant = rf"{re.escape(pattern)}[./].*"
    ops = "op" if len(within) == 1 else f"{len(within)} ops"
    return f" For the {ops} in it write {meant!r}."


def check_op_dict(source: str, op_dict: OpDict | None) -> None:
    """Refuse what an ``op_type_dict`` or ``op_name_dict`` can mean for no model.

    Args:
        source:
            Which of them it is.
        op_dict:
            The dictionary.

    Raises:
        ValueError:
            If it has another shape, or a value that no backend of this package has.
    """
    # Names need not be regular expressions, and which there are only a model tells.
    exact = op_dict if source == "op_name_dict" and op_dict is not None else ()
    check_values(parse_wishes(source, op_dict, exact=exact), ())


def check_values(wishes: Sequence[Wish], ops: Sequence[Op]) -> None:
    """Refuse values that exist nowhere.

    Raises:
        ValueError:
            If no field of that kind ever has such a value.
    """
    for wish in wishes:
        known = _KNOWN.get(wish.field)
        if known is None:  # Numbers.
            wrong = [value for value in wish.values if not isinstance(value, int)]
            if wrong:
                raise ValueError(f"{wish.place} must be integers, but got {wrong[0]!r}.")
            _check_numbers(wish)
            continue
        offers = wish.offers(option for op in ops for option in op[2])
        for value in wish.values:
            if value not in known and value not in offers:
                raise ValueError(
                    f"{wish.place}: there is no {wish.field} {value!r}."
                    f"{did_you_mean(str(value), known)} There are {', '.join(known)}."
                )


def _check_numbers(wish: Wish) -> None:
    """Refuse numbers that no type and no group has.

    Raises:
        ValueError:
            If there is one.
    """
    for value in wish.values:
        if wish.field == "bits" and value not in _BITS:
            raise ValueError(
                f"{wish.place}: there is no type of {value} bits; there are types of "
                f"{', '.join(map(str, _BITS))} bits."
            )
        is_size = isinstance(value, int) and (value > 0 or value == PER_CHANNEL)
        if wish.field == "group_size" and not is_size:
            raise ValueError(
                f"{wish.place} must be positive, or -1 for a scale per channel, but got {value}."
            )


def some_of(items: Sequence[object], *, most: int = 12, separator: str = ", ") -> str:
    rest = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + rest
