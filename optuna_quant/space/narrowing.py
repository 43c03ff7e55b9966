"""Narrowing what a backend can do to what the user asks for."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.space.config import OpConfig
from optuna_quant.space.offers import Offers
from optuna_quant.space.wish_checks import Op
from optuna_quant.space.wish_checks import check_unmatched
from optuna_quant.space.wish_checks import check_values
from optuna_quant.space.wish_checks import some_of
from optuna_quant.space.wishes import PER_CHANNEL
from optuna_quant.space.wishes import OpDict
from optuna_quant.space.wishes import Wish
from optuna_quant.space.wishes import parse_wishes


if TYPE_CHECKING:
    from optuna_quant.space.capability import OnRequest


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
            exist, or asks for floating-point types, or for modes of named ops, that are not there.
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
    check_unmatched(matched, ops, known)
    check_values(wishes, ops)

    # What holds for each op, the least important first.
    beside = Offers(on_request, unavailable)
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


def _meant(wish: Wish, found: Sequence[Op], beside: Offers) -> list[Op]:
    """The ops that offer a value of a wish, of those that its pattern matches.

    Warns about the values that no op offers, and about the ops that offer none of the values.

    Raises:
        ValueError:
            If it asks for floats, or for a mode of named ops, and none of its values is offered.
    """
    offers = wish.offers(option for op in found for option in op[2])
    missing: dict[str, list[str]] = {}
    for value in wish.values:
        if value not in offers:
            missing.setdefault(beside.reason(value, wish, found), []).append(repr(value))
    usable = wish.among(offers)
    of_named_ops = wish.source == "op_name_dict" and wish.field == "mode"
    if not usable.values and (wish.wants_float or of_named_ops):
        # Ignored, it would have quantized what was to stay in floats, or in a way not asked for.
        reasons = "".join(f"{', '.join(v)} is not available{why}; " for why, v in missing.items())
        raise ValueError(
            f"{wish.place}: {reasons}nothing that was asked for is left. Available: "
            f"{beside.available(wish, found)}."
        )
    for reason, values in missing.items():
        warn_user(
            f"{wish.place}: {', '.join(values)} is not available{reason} and is ignored; "
            f"available: {beside.available(wish, found)}."
        )
    meant, without = [], []
    for op in found:
        if usable.among(usable.offers(op[2])).values:
            meant.append(op)
        elif usable.offers(option for option in op[2] if option.is_quantized):
            without.append(op)  # Unlike an op without a weight, which no wish for weights means.
    if usable.values and without:
        warn_user(
            f"{wish.place}: {', '.join(map(repr, usable.values))} is not available for op "
            f"{some_of([repr(op[0]) for op in without])} and is ignored there; available: "
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
            f"{some_of([repr(op[0]) for op in ops])} and is ignored there; the options of op "
            f"{name!r} are: {some_of([option.label for option in options], separator='; ')}."
        )
