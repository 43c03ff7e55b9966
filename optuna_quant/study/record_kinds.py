"""The kinds of values that a record may hold."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import fields
import math
from numbers import Real
from typing import Any
from typing import TypeGuard

from optuna_quant.sequential import Decision
from optuna_quant.study import record
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.simulation import OutputDifference


Check = Callable[[Any], bool]
"""Whether a value is of a kind."""


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: object) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def are_costs(value: object) -> bool:
    """Whether it is numbers by the names of measures."""
    return isinstance(value, dict) and all(
        isinstance(measure, str) and is_number(cost) for measure, cost in value.items()
    )


def is_flag(value: object) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, which may be infinite."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def is_finite(value: object) -> bool:
    """Whether it is a finite number."""
    return is_number(value) and math.isfinite(value)


def is_texts(value: object) -> bool:
    """Whether it is strings by name."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    )


def is_simulation(value: object) -> bool:
    """Whether it is what a model's simulation gave."""
    if not has(value, metric=is_number, evaluated=is_number):
        return False
    difference = value.get("difference")
    if difference is None:
        return True
    known = {each.name for each in fields(OutputDifference)}
    if not has(difference, samples=is_count, of=is_text) or not difference.keys() <= known:
        return False
    rest = (each for name, each in difference.items() if name not in ("samples", "of"))
    return all(each is None or is_finite(each) for each in rest)


def has(value: object, /, **checks: Check) -> TypeGuard[Mapping[str, Any]]:
    """Whether it is a mapping that has some names, with values of these kinds."""
    return isinstance(value, Mapping) and all(
        name in value and check(value[name]) for name, check in checks.items()
    )


def is_claim(value: object) -> bool:
    """Whether it is a trial's claim."""
    known = {each.name for each in fields(record.Claim)}
    needed: dict[str, Check] = {"number": is_count, "key": is_text}
    needed |= {"stage": is_text, "worker": is_text}
    if not has(value, **needed) or not value.keys() <= known:
        return False
    fidelity, positions = value.get("fidelity", FULL.to_attr()), value.get("positions")
    return (
        is_flag(value.get("provisional", False))
        and is_flag(value.get("speculative", False))
        and (fidelity in (FULL.to_attr(), DECIDED.to_attr()) or is_count(fidelity))
        and is_count(value.get("broken_promises", 0))
        # In memory a tuple stays one.
        and (positions is None or isinstance(positions, list | tuple))
        and all(map(is_count, positions or ()))
    )


def is_evidence(value: object) -> bool:
    """Whether it says on what part of the samples a trial was evaluated."""
    if not has(value, decision=is_text, samples=is_count, of=is_count):
        return False
    if (
        value["decision"] not in {"complete", *map(str, Decision)}
        or value["samples"] > value["of"]
    ):
        return False
    if value["decision"] == "complete":
        return True
    bounds = value.get("bounds")
    return (
        has(value, estimate=is_number, reason=is_text)
        and isinstance(bounds, list)
        and len(bounds) == 2
        # What has no bound is not written.
        and all(bound is None or is_number(bound) for bound in bounds)
    )


def is_checkpoint(value: object) -> bool:
    """Whether it says what is kept of a training."""
    return has(
        value,
        training=is_text,
        step=lambda step: isinstance(step, int),
        artifact=is_text,
        hyperparameters=lambda found: isinstance(found, dict),
    )


def are_reports(value: object) -> bool:
    """Whether it is pairs of a step and what was reported there."""
    return isinstance(value, list) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and is_count(pair[0])
        and isinstance(pair[1], Real)
        for pair in value
    )
