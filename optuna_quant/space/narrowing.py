"""Narrowing what a backend can do to what the user asks for."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import re
from types import MappingProxyType
from typing import TYPE_CHECKING
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
from optuna_quant.space.wishes import FIELDS
from optuna_quant.space.wishes import OF_OPS
from optuna_quant.space.wishes import PER_CHANNEL
from optuna_quant.space.wishes import OpDict
from optuna_quant.space.wishes import Wish
from optuna_quant.space.wishes import parse_wishes


if TYPE_CHECKING:
    from optuna_quant.space.capability import OnRequest


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


def narrow(
    ops: Iterable[Op],
    *,
    op_type_dict: OpDict | None = None,
    op_name_dict: OpDict | None = None,
    on_request: Mapping[str, Sequence[OnRequest]] = MappingProxyType({}),
    known_types: Collection[str] = (),
    known_names: Collection[str] = (),
    unavailable: Mapping[str, str] = MappingProxyType({}),
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
        unavailable:
            Values that these ops would have under another condition, and under which, for
            messages, such as ``"without calibration_data"``.

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
    beside = _Offers(on_request, unavailable)
    holding: dict[str, dict[tuple[str, str], Wish]] = {name: {} for name in names}
    for wish in wishes:
        found = matched[wish.source, wish.pattern]
        for op in _meant(wish, found, beside) if found else ():
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
        field
        for wish in wishes
        if wish.side in ("", each.side)
        for value in wish.values_of(each.option)
        if value in wish.values
        for field in _named_by(wish, value)
    }
    return named >= each.fields


def _named_by(wish: Wish, value: str | int) -> set[str]:
    """The fields that a value of a wish names."""
    if wish.field == "group_size" and value == PER_CHANNEL:
        return {"granularity"}
    return {"bits"} if wish.field == "dtype" else {wish.field}


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
    _check_values(parse_wishes(source, op_dict, exact=exact), ())


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


@dataclass(frozen=True)
class _Offers:
    """What can be had beside the options of ops, for messages.

    Args:
        on_request:
            Further options, by op name.
        unavailable:
            Values that there would be under another condition, and under which.
    """

    on_request: Mapping[str, Sequence[OnRequest]]
    unavailable: Mapping[str, str]

    def available(self, wish: Wish, ops: Sequence[Op]) -> str:
        """The values that a wish of this field may have, those on request included."""
        own = [option for op in ops for option in op[2]]
        further = self._further(ops)
        alone = [each.option for each in further if not _named_beside(wish, each)]
        values = wish.offers([*own, *alone])
        if all(isinstance(value, int) for value in values):
            values = sorted(values)
        found = _some(values) or "nothing"
        if wish.field == "group_size" and PER_CHANNEL not in values:
            every = [*own, *(each.option for each in further)]
            if "per_channel" in replace(wish, field="granularity").offers(every):
                found += ", or -1 (granularity 'per_channel')"
        return found

    def reason(self, value: str | int, wish: Wish, ops: Sequence[Op]) -> str:
        """Under which condition there would be a value; empty if there is none."""
        ways = [
            _named_beside(wish, each)
            for each in self._further(ops)
            if value in wish.values_of(each.option)
        ]
        if ways:
            return f" unless {min(ways, key=len)} is named as well"
        condition = self.unavailable.get(str(value))
        return f" {condition}" if condition else ""

    def _further(self, ops: Sequence[Op]) -> list[OnRequest]:
        found = [each for op in ops for each in self.on_request.get(op[0], ())]
        return list(dict.fromkeys(found))


def _named_beside(wish: Wish, each: OnRequest) -> str:
    """What must be named beside the field of a wish for an option on request; empty if nothing."""
    own = {wish.field, "bits"} if wish.field == "dtype" else {wish.field}
    fields = each.fields - own if wish.side in ("", each.side) else each.fields
    found = []
    for field in sorted(fields, key=(*OF_OPS, *FIELDS).index):
        side = "" if field in OF_OPS else each.side
        values = replace(wish, side=side, field=field).values_of(each.option)
        found.append(" ".join([side, field, *map(repr, values)]).strip())
    return " and ".join(found)


def _meant(wish: Wish, found: Sequence[Op], beside: _Offers) -> list[Op]:
    """The ops that offer a value of a wish, of those that its pattern matches.

    Warns about the values that no op offers, and about the ops that offer none of the values.
    """
    offers = wish.offers(option for op in found for option in op[2])
    missing: dict[str, list[str]] = {}
    for value in wish.values:
        if value not in offers:
            missing.setdefault(beside.reason(value, wish, found), []).append(repr(value))
    for reason, values in missing.items():
        warn_user(
            f"{wish.place}: {', '.join(values)} is not available{reason} and is ignored; "
            f"available: {beside.available(wish, found)}."
        )
    usable = wish.among(offers)
    meant, without = [], []
    for op in found:
        if usable.among(usable.offers(op[2])).values:
            meant.append(op)
        elif usable.offers(option for option in op[2] if option.is_quantized):
            without.append(op)  # Unlike an op without a weight, which no wish for weights means.
    if usable.values and without:
        warn_user(
            f"{wish.place}: {', '.join(map(repr, usable.values))} is not available for op "
            f"{_some([repr(op[0]) for op in without])} and is ignored there; available: "
            f"{beside.available(usable, without)}."
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
        warn_user(
            f"{wish.place} is not compatible with the other settings of op "
            f"{_some([repr(op[0]) for op in ops])} and is ignored there; the options of op "
            f"{name!r} are: {_some([option.label for option in options], separator='; ')}."
        )


def _some(items: Sequence[object], *, most: int = 12, separator: str = ", ") -> str:
    rest = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + rest
