"""Read the tuning space that a study keeps."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.space.config import OpConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable
from optuna_quant.study import record
from optuna_quant.study.blobs import read_text


if TYPE_CHECKING:
    import optuna


def recorded_space(study: optuna.Study, prefix: str = "quant") -> TuningSpace:
    """The tuning space that a study keeps, its ops in the order of the model.

    Studies of earlier versions may not say it, nor the types of the ops; then these are empty.

    Raises:
        ValueError:
            If it keeps none.
    """
    text = read_text(study, f"{record.SPACE}:{prefix}")
    if text is None:
        raise ValueError(
            f"The study {study.study_name!r} holds no tuning space with the prefix {prefix!r}: "
            "it was not made by optuna_quant, or never started. Give a study that "
            "tune(), optuna-quant tune or a sampler of optuna_quant has searched."
        )
    described: Mapping[str, list[Any]] = json.loads(text)
    types = json.loads(read_text(study, f"{record.OP_TYPES}:{prefix}") or "{}")
    parts: dict[str, dict[str, list[Any]]] = {"op": {}, "recipe": {}, "group": {}}
    for key, values in described.items():
        kind, _, name = key.partition(":")
        if kind in parts:
            parts[kind][name] = values
    grouped = {op for ops in parts["group"].values() for op in ops}
    groups = {op: [op] for op in parts["op"] if op not in grouped} | parts["group"]
    place = {op: number for number, op in enumerate(types)}
    groups = dict(sorted(groups.items(), key=lambda group: place.get(group[1][0], len(place))))
    tunables = tuple(
        Tunable(
            name,
            "+".join(dict.fromkeys(types.get(op, "") for op in ops)),
            tuple(ops),
            tuple(map(OpConfig.from_label, parts["op"][ops[0]])),
        )
        for name, ops in groups.items()
    )
    recipes = {name: tuple(values) for name, values in parts["recipe"].items()}
    return TuningSpace(tunables, recipes, tuple(described["calibration_size"]), prefix)


def recorded_left_out(study: optuna.Study, prefix: str = "quant") -> tuple[str, ...]:
    """The ops that the tuning space of a study leaves out because of what they cost."""
    text = read_text(study, f"{record.LEFT_OUT}:{prefix}")
    return () if text is None else tuple(json.loads(text))
