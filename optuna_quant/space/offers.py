"""What can be had beside the options of ops, for messages about wishes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.space.wish_checks import Op
from optuna_quant.space.wish_checks import some_of
from optuna_quant.space.wishes import FIELDS
from optuna_quant.space.wishes import OF_OPS
from optuna_quant.space.wishes import PER_CHANNEL
from optuna_quant.space.wishes import Wish


if TYPE_CHECKING:
    from optuna_quant.space.capability import OnRequest


@dataclass(frozen=True)
class Offers:
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
        alone = [each.option for each in further if not named_beside(wish, each)]
        values = wish.offers([*own, *alone])
        if all(isinstance(value, int) for value in values):
            values = sorted(values)
        found = some_of(values) or "nothing"
        if wish.field == "group_size" and PER_CHANNEL not in values:
            every = [*own, *(each.option for each in further)]
            if "per_channel" in replace(wish, field="granularity").offers(every):
                found += ", or -1 (granularity 'per_channel')"
        return found

    def reason(self, value: str | int, wish: Wish, ops: Sequence[Op]) -> str:
        """Under which condition there would be a value; empty if there is none."""
        ways = [
            named_beside(wish, each)
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


def named_beside(wish: Wish, each: OnRequest) -> str:
    """What must be named beside the field of a wish for an option on request; empty if nothing."""
    own = {wish.field, "bits"} if wish.field == "dtype" else {wish.field}
    fields = each.fields - own if wish.side in ("", each.side) else each.fields
    found = []
    for field in sorted(fields, key=(*OF_OPS, *FIELDS).index):
        side = "" if field in OF_OPS else each.side
        values = replace(wish, side=side, field=field).values_of(each.option)
        found.append(" ".join([side, field, *map(repr, values)]).strip())
    return " and ".join(found)
