"""A tuning space as a table."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import pandas as pd

    from optuna_quant.space.tunable import Tunable


def space_frame(tunables: Iterable[Tunable], parameter_name: Callable[[str], str]) -> pd.DataFrame:
    """A row per op: what it is, and what can be done with it."""
    import pandas as pd

    rows = []
    for tunable in tunables:
        fixed = len(tunable.options) == 1
        activations = (o.activation.label for o in tunable.quantized if o.activation)
        weights = (o.weight.label for o in tunable.quantized if o.weight)
        row = {
            "op_type": tunable.op_type,
            "parameter": "" if fixed else parameter_name(f"op:{tunable.name}"),
            "default": tunable.default.label,
            "options": len(tunable.options),
            "modes": _listed(o.mode for o in tunable.quantized),
            "activation": _listed(activations),
            "weight": _listed(weights),
            "fallback": _listed(o.mode for o in tunable.fallbacks),
        }
        rows += [{"op": op, **row} for op in tunable.ops]
    return pd.DataFrame(rows)


def _listed(items: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(items))
