"""Narrowing what a backend can do to what the user asks for.

The dictionaries have the shape of neural-compressor's ``op_type_dict`` and ``op_name_dict``::

    {"Conv": {"weight": {"dtype": ["fp32"]}, "activation": {"algorithm": ["minmax"]}}}
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import inspect
import re
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias
import warnings

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.space.config import DTYPES
from optuna_quant.space.config import FLOAT_MODES
from optuna_quant.space.config import GRANULARITIES
from optuna_quant.space.config import MODES
from optuna_quant.space.config import SCHEMES
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


if TYPE_CHECKING:
    from optuna_quant.space.capability import OnRequest


OpDict: TypeAlias = Mapping[str, Mapping[str, Any]]
Op: TypeAlias = tuple[str, str, Sequence[OpConfig]]
"""The name of an op, its type, and its options."""

_SIDES = ("activation", "weight")
_OF_OPS = ("mode", "accuracy_level")
_FIELDS = ("dtype", "bits", "scheme", "granularity", "group_size", "algorithm")
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
        return [] if value is None else [value]

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
            if key in _OF_OPS:
                wishes.append(_wish(source, pattern, "", key, value))
            elif key in _SIDES and isinstance(value, Mapping):
                for name, values in value.items():
                    wishes.append(_wish(source, pattern, key, name, values))
            else:
                raise ValueError(
                    f"{source}[{pattern!r}][{key!r}]: expected 'activation' or 'weight' with a "
                    "dictionary, or 'mode' or 'accuracy_level' with a list."
                    f"{'' if key in _SIDES else did_you_mean(str(key), (*_SIDES, *_OF_OPS))}"
                )
    return wishes


def names_weight_algorithms(*op_dicts: OpDict | None) -> bool:
    """Whether a user names algorithms of weights for some ops."""
    return any(
        wish.side == "weight" and wish.field == "algorithm"
        for op_dict in op_dicts
        for wish in parse_wishes("op_type_dict", op_dict, exact=op_dict or ())
    )


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
    if side and field not in _FIELDS:
        raise ValueError(
            f"{wish.place}: unknown field; known are {', '.join(_FIELDS)}."
            f"{did_you_mean(str(field), _FIELDS)}"
        )
    if not isinstance(values, Sequence) or not values:
        raise ValueError(
            f"{wish.place} must be a list with at least one value, but got {values!r}."
        )
    for value in values:
        if not isinstance(value, (str, int)):
            raise ValueError(f"{wish.place}: {value!r} is neither text nor an integer.")
    return replace(wish, values=tuple(v.lower() if isinstance(v, str) else v for v in values))


def narrow(
    ops: Iterable[Op],
    *,
    op_type_dict: OpDict | None = None,
    op_name_dict: OpDict | None = None,
    on_request: Mapping[str, Sequence[OnRequest]] = MappingProxyType({}),
    known_types: Collection[str] = (),
    known_names: Collection[str] = (),
) -> list[tuple[OpConfig, ...]]:
    """Keep the options that the user allows, op by op.

    Patterns are regular expressions that must match the whole op type or op name; a pattern that
    is exactly the name of an op means that op. For one field, ``op_name_dict`` overrides
    ``op_type_dict``, and a later pattern an earlier one; the same order decides which of two
    fields counts if an op has no option that fits both. An op keeps its floating-point options
    (its fallback) unless ``mode`` says otherwise; ``"dtype": ["fp32"]``, on either side, leaves
    nothing else.

    Args:
        ops:
            ``(name, op type, options)`` of each op.
        op_type_dict:
            What to allow, by op type.
        op_name_dict:
            What to allow, by op name.
        on_request:
            Further options of ops, by op name: each is added to the op's own where the user names
            its fields.
        known_types:
            Op types that exist, though none of these ops has them.
        known_names:
            Ops that exist, though they are not among these.

    Returns:
        The options of each op, in the given order. Never empty, and without a quantized option
        only if a floating-point one was asked for: what an op does not offer is ignored, and a
        warning names it once.

    Raises:
        ValueError:
            If a dictionary has another shape, or names a type, an op or a value that does not
            exist.
    """
    ops = list(ops)
    names = {op[0] for op in ops}
    wishes = parse_wishes("op_type_dict", op_type_dict)
    wishes += parse_wishes("op_name_dict", op_name_dict, exact=names)
    matched: dict[tuple[str, str], list[Op]] = {}
    for pattern in op_type_dict or {}:
        matched["op_type_dict", pattern] = [op for op in ops if re.fullmatch(pattern, op[1])]
    for pattern in op_name_dict or {}:
        matched["op_name_dict", pattern] = [
            op
            for op in ops
            if (op[0] == pattern if pattern in names else re.fullmatch(pattern, op[0]))
        ]
    if on_request and wishes:
        ops, matched = _with_asked(ops, matched, wishes, on_request)
    known = {
        "op_type_dict": list(dict.fromkeys((*(op[1] for op in ops), *known_types))),
        "op_name_dict": list(dict.fromkeys((*(op[0] for op in ops), *known_names))),
    }
    _check_unmatched(matched, ops, known)
    _check_values(wishes, ops)

    # What holds for each op, the least important first.
    holding: dict[str, dict[tuple[str, str], Wish]] = {name: {} for name in names}
    for wish in wishes:
        found = matched[wish.source, wish.pattern]
        for op in _meant(wish, found) if found else ():
            holding[op[0]].pop((wish.side, wish.field), None)
            holding[op[0]][wish.side, wish.field] = wish
    ignored: dict[Wish, list[Op]] = {}
    narrowed = []
    for op in ops:
        kept, unfit = _narrow_op(op[2], list(holding[op[0]].values()))
        narrowed.append(kept)
        for wish in unfit:
            ignored.setdefault(wish, []).append(op)
    _warn_ignored(ignored)
    return narrowed


def _with_asked(
    ops: Sequence[Op],
    matched: Mapping[tuple[str, str], Sequence[Op]],
    wishes: Sequence[Wish],
    on_request: Mapping[str, Sequence[OnRequest]],
) -> tuple[list[Op], dict[tuple[str, str], list[Op]]]:
    """The ops, and those that each pattern matches, with the options that are asked for."""
    of_op: dict[str, list[Wish]] = {}
    for wish in wishes:
        for op in matched[wish.source, wish.pattern]:
            of_op.setdefault(op[0], []).append(wish)
    extended: dict[str, Op] = {}
    for name, op_type, options in ops:
        asked = (
            each.option
            for each in on_request.get(name, ())
            if _is_asked(each, of_op.get(name, ()))
        )
        # Fallback stays at the end.
        floats = [option for option in options if not option.is_quantized]
        quantized = [option for option in options if option.is_quantized]
        extended[name] = (name, op_type, tuple(dict.fromkeys((*quantized, *asked, *floats))))
    found = {place: [extended[op[0]] for op in each] for place, each in matched.items()}
    return list(extended.values()), found


def _is_asked(each: OnRequest, wishes: Sequence[Wish]) -> bool:
    """Whether wishes name all fields of an option that must be named."""
    named = {
        "bits" if wish.field == "dtype" else wish.field
        for wish in wishes
        if wish.side in ("", each.side)
        and any(value in wish.values for value in wish.values_of(each.option))
    }
    return named >= each.fields


def _check_unmatched(
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
        have = _some(sorted({op[1] for op in ops}) if column else [op[0] for op in ops])
        names = known[source]
        if not any(name == pattern or re.fullmatch(pattern, name) for name in names):
            tuned = [op[1] if column else op[0] for op in ops]
            raise ValueError(
                f"{source}[{pattern!r}] matches no op {kind}."
                f"{did_you_mean(pattern, tuned) or did_you_mean(pattern, names)} The op {kind}s "
                f"are {have}. A key must match the whole {kind}."
            )
        _warn(f"{source}[{pattern!r}] matches no op and is ignored; the op {kind}s are {have}.")


def _check_values(wishes: Sequence[Wish], ops: Sequence[Op]) -> None:
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
            continue
        offers = wish.offers(option for op in ops for option in op[2])
        for value in wish.values:
            if value not in known and value not in offers:
                raise ValueError(
                    f"{wish.place}: there is no {wish.field} {value!r}."
                    f"{did_you_mean(str(value), known)} There are {', '.join(known)}."
                )


def _meant(wish: Wish, found: Sequence[Op]) -> list[Op]:
    """The ops that offer a value of a wish, of those that its pattern matches.

    Warns about the values that no op offers, and about the ops that offer none of the values.
    """
    offers = wish.offers(option for op in found for option in op[2])
    missing = [value for value in wish.values if value not in offers]
    if missing:
        _warn(
            f"{wish.place}: {', '.join(map(repr, missing))} is not available and is ignored; "
            f"available: {_some(offers) or 'nothing'}."
        )
    usable = wish.among(offers)
    meant, without = [], []
    for op in found:
        if usable.among(usable.offers(op[2])).values:
            meant.append(op)
        elif usable.offers(option for option in op[2] if option.is_quantized):
            without.append(op)  # Unlike an op without a weight, which no wish for weights means.
    if usable.values and without:
        have = _some(usable.offers(option for op in without for option in op[2]))
        _warn(
            f"{wish.place}: {', '.join(map(repr, usable.values))} is not available for op "
            f"{_some([repr(op[0]) for op in without])} and is ignored there; available: {have}."
        )
    return meant


def _narrow_op(
    options: Sequence[OpConfig], wishes: Sequence[Wish]
) -> tuple[tuple[OpConfig, ...], list[Wish]]:
    """The options that fit, and the wishes that had to be ignored for it."""
    kept = tuple(options)
    ignored = []
    for wish in reversed(wishes):
        usable = wish.among(wish.offers(options))
        left = tuple(option for option in kept if usable.allows(option))
        unquantized = _quantized(kept) and not _quantized(left) and not usable.wants_float
        if left and not unquantized:
            kept = left
        else:
            ignored.append(wish)
    return kept, ignored


def _quantized(options: Iterable[OpConfig]) -> bool:
    return any(option.is_quantized for option in options)


def _warn_ignored(ignored: Mapping[Wish, list[Op]]) -> None:
    for wish, ops in ignored.items():
        name, _, options = ops[0]
        _warn(
            f"{wish.place} is not compatible with the other settings of op "
            f"{_some([repr(op[0]) for op in ops])} and is ignored there; the options of op "
            f"{name!r} are: {_some([option.label for option in options], separator='; ')}."
        )


def _some(items: Sequence[object], *, most: int = 12, separator: str = ", ") -> str:
    rest = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + rest


def _warn(message: str) -> None:
    """Warn at the line, outside this package, that led here."""
    package = __name__.partition(".")[0]
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
