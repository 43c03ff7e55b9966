"""What a user allows, read from ``op_type_dict`` and ``op_name_dict``.

The dictionaries have the shape of those of neural-compressor::

    {"Conv": {"weight": {"dtype": ["fp32"]}, "activation": {"algorithm": ["minmax"]}}}
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import re
from typing import Any
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.space.config import FLOAT_MODES
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


OpDict: TypeAlias = Mapping[str, Mapping[str, Any]]
SIDES = ("activation", "weight")
OF_OPS = ("mode", "accuracy_level")
PER_CHANNEL = -1
"""The group size that stands for one group as long as the channel."""
FIELDS = ("dtype", "bits", "scheme", "granularity", "group_size", "algorithm")


@dataclass(frozen=True)
class Wish:
    """The values that a user allows for one field of the ops that a pattern matches."""

    source: str
    pattern: str
    side: str  # "activation", "weight" or "" (the whole op)
    field: str
    values: tuple[str | int, ...]

    @property
    def place(self) -> str:
        """Where the user wrote it."""
        path = [self.pattern, self.side, self.field] if self.side else [self.pattern, self.field]
        return self.source + "".join(f"[{part!r}]" for part in path)

    @property
    def wants_float(self) -> bool:
        """Whether a floating-point type or mode is among the values."""
        return any(value in FLOAT_MODES for value in self.values)

    def values_of(self, option: OpConfig) -> list[str | int]:
        """What an option has in the field of this wish: one value or none."""
        if self.field == "mode":
            return [option.mode]
        if self.field == "accuracy_level":
            return [] if option.accuracy_level is None else [option.accuracy_level]
        if not option.is_quantized:
            return [option.mode] if self.field == "dtype" else []
        tensor: TensorConfig | None = getattr(option, self.side)
        value = None if tensor is None else getattr(tensor, self.field)
        if value is None and tensor is not None and self._means_channels(option, tensor):
            value = PER_CHANNEL
        return [] if value is None else [value]

    def _means_channels(self, option: OpConfig, tensor: TensorConfig) -> bool:
        """Whether an option without groups is one that the group size -1 asks for."""
        return (
            self.field == "group_size"
            and PER_CHANNEL in self.values
            and option.mode == "weight_only"
            and tensor.granularity == "per_channel"
        )

    def offers(self, options: Iterable[OpConfig]) -> list[str | int]:
        """The different values that options have in the field of this wish."""
        return list(dict.fromkeys(v for option in options for v in self.values_of(option)))

    def among(self, offers: Collection[str | int]) -> Wish:
        """This wish without the values that are not offered."""
        return replace(self, values=tuple(value for value in self.values if value in offers))

    def allows(self, option: OpConfig) -> bool:
        """Whether an option fits; :attr:`values` are those that the op offers."""
        if self.field == "mode":
            return option.mode in self.values
        if not option.is_quantized:
            # The fallback stays unless the user picks among the floating-point types.
            return not self.wants_float or option.mode in self.values
        if all(value in FLOAT_MODES for value in self.values):
            return False
        own = self.values_of(option)
        return not own or own[0] in self.values


def parse_wishes(
    source: str, op_dict: OpDict | None, *, exact: Collection[str] = ()
) -> list[Wish]:
    """Read an ``op_type_dict`` or ``op_name_dict``.

    Args:
        source:
            Which of them it is, for messages.
        op_dict:
            The dictionary.
        exact:
            The patterns that are names and not regular expressions.

    Raises:
        ValueError:
            If it has another shape: an unknown key, a value that is not a list, a pattern that
            is not a regular expression.
    """
    if op_dict is None:
        return []
    if not isinstance(op_dict, Mapping):
        raise ValueError(f"{source} must be a dictionary, but got {op_dict!r}.")
    wishes = []
    for pattern, body in op_dict.items():
        if pattern not in exact:
            _check_pattern(source, pattern)
        if not isinstance(body, Mapping):
            raise ValueError(f"{source}[{pattern!r}] must be a dictionary, but got {body!r}.")
        for key, value in body.items():
            if key in OF_OPS:
                wishes.append(_wish(source, pattern, "", key, value))
            elif key in SIDES and isinstance(value, Mapping):
                for name, values in value.items():
                    wishes.append(_wish(source, pattern, key, name, values))
            else:
                raise ValueError(
                    f"{source}[{pattern!r}][{key!r}]: expected 'activation' or 'weight' with a "
                    "dictionary, or 'mode' or 'accuracy_level' with a list."
                    f"{'' if key in SIDES else did_you_mean(str(key), (*SIDES, *OF_OPS))}"
                )
    return wishes


def _check_pattern(source: str, pattern: object) -> None:
    try:
        re.compile(str(pattern))
    except re.error as error:
        raise ValueError(
            f"{source}[{pattern!r}]: the pattern is not a regular expression ({error}); "
            "use re.escape for names with special characters."
        ) from None
    if not isinstance(pattern, str):
        raise ValueError(f"{source}[{pattern!r}]: the pattern must be text.")


def _wish(source: str, pattern: str, side: str, field: str, values: Any) -> Wish:
    if isinstance(values, (str, int)):
        values = [values]
    wish = Wish(source, pattern, side, field, ())
    if side and field not in FIELDS:
        raise ValueError(
            f"{wish.place}: unknown field; known are {', '.join(FIELDS)}."
            f"{did_you_mean(str(field), FIELDS)}"
        )
    if not isinstance(values, Sequence) or not values:
        raise ValueError(
            f"{wish.place} must be a list with at least one value, but got {values!r}."
        )
    for value in values:
        if not isinstance(value, (str, int)):
            raise ValueError(f"{wish.place}: {value!r} is neither text nor an integer.")
    return replace(wish, values=tuple(v.lower() if isinstance(v, str) else v for v in values))


def names_weight_algorithms(*op_dicts: OpDict | None) -> bool:
    """Whether a user names algorithms of weights for some ops."""
    return any(
        wish.side == "weight" and wish.field == "algorithm"
        for op_dict in op_dicts
        for wish in parse_wishes("op_type_dict", op_dict, exact=op_dict or ())
    )
