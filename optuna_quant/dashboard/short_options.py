"""Short names for the options of an op, as people tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
import re

from optuna_quant.dashboard.trial_words import precision
from optuna_quant.space.config import OpConfig


_PARTS = re.compile(r"[ =/]")


def short_options(labels: Sequence[object]) -> dict[object, str] | None:
    """A short name for each option of an op: its precision, and what differs beside it.

    Args:
        labels:
            The labels of the options, which are choices of a parameter.

    Returns:
        The names by label, each another one; None if these are no options of an op.
    """
    try:
        kinds = {label: precision(OpConfig.from_label(str(label))) for label in labels}
    except ValueError:
        return None
    groups: dict[str, list[object]] = {}
    for label, kind in kinds.items():
        groups.setdefault(kind, []).append(label)
    names = {}
    for kind, group in groups.items():
        parts = [_PARTS.split(str(label)) for label in group]
        if len({len(each) for each in parts}) > 1:
            return None
        differ = [i for i, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
        for label, each in zip(group, parts, strict=True):
            names[label] = " ".join([kind, "/".join(each[i] for i in differ)]).strip()
    return names if len(set(names.values())) == len(kinds) else None
