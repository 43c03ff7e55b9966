"""The fields of a configuration of neural-compressor 2.x, of an object or a mapping."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from numbers import Real
import os
from types import MappingProxyType
from typing import Any
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean


Warn: TypeAlias = Callable[[str], None]
"""Notes a warning about a configuration."""

FIELDS: Mapping[str, object] = MappingProxyType(
    {
        "accuracy_criterion": None,
        "approach": "static",
        "backend": "default",
        "calibration_sampling_size": [100],
        "device": "cpu",
        "diagnosis": False,
        "domain": "auto",
        "example_inputs": None,
        "excluded_precisions": [],
        "inputs": [],
        "model_name": "",
        "ni_workload_name": "quantization",
        "op_name_dict": None,
        "op_type_dict": None,
        "outputs": [],
        "quant_format": "default",
        "quant_level": "auto",
        "recipes": {},
        "reduce_range": None,
        "tuning_criterion": None,
    }
)
"""The fields of a configuration, each with its default in neural-compressor 2.6."""

ACCURACY = ("higher_is_better", "criterion", "tolerable_loss")
"""Those of an accuracy criterion."""

TUNING = ("strategy", "strategy_kwargs", "timeout", "max_trials", "objective")
"""Those of a tuning criterion."""

_PARTS: Mapping[str, tuple[str, Sequence[str]]] = MappingProxyType(
    {
        "accuracy_criterion": ("an AccuracyCriterion", ACCURACY),
        "tuning_criterion": ("a TuningCriterion", TUNING),
    }
)

# The sections of neural-compressor 1.x, and what a section became.
_OF_1 = (
    "evaluation",
    "graph_optimization",
    "mixed_precision",
    "model",
    "model_conversion",
    "pruning",
    "quantization",
    "tuning",
    "version",
)
_BECAME = (
    "its fields have other names there. quantization.approach is approach, quantization.op_wise "
    "is op_name_dict, tuning.strategy.name and tuning.exit_policy are tuning_criterion="
    "{'strategy': ..., 'timeout': ..., 'max_trials': ...}, and tuning.accuracy_criterion="
    "{'relative': 0.01} is accuracy_criterion={'criterion': 'relative', 'tolerable_loss': 0.01}; "
    "see docs/migrating.md"
)


def fields_of(conf: object) -> dict[str, Any]:
    """All fields of a configuration by name, with the defaults of those that are not given.

    Raises:
        TypeError:
            If it is no configuration.
        ValueError:
            If a mapping has a field that does not exist.
    """
    if isinstance(conf, Mapping):
        _check_fields(conf)
        return {**FIELDS, **conf}
    name = type(conf).__name__
    wanted = "conf must be a PostTrainingQuantConfig of neural-compressor 2.x or a mapping with "
    wanted += "its fields"
    if isinstance(conf, type):
        raise TypeError(f"{wanted}, but is the class {conf.__name__}: give {conf.__name__}(...).")
    if isinstance(conf, (str, os.PathLike)):
        raise TypeError(
            f"{wanted}, but got {str(conf)!r}. A file is the form of neural-compressor 1.x, and "
            f"{_BECAME}."
        )
    if name == "QuantizationAwareTrainingConfig":
        raise TypeError("conf is for quantization-aware training, which ONNX models do not have.")
    if name != "PostTrainingQuantConfig" and not hasattr(conf, "calibration_sampling_size"):
        meant = next(
            (part for part, (kind, _) in _PARTS.items() if kind.endswith(f" {name}")), None
        )
        hint = "" if meant is None else f" Write {{{meant!r}: {name}(...)}}."
        raise TypeError(f"{wanted}, but is of type {name}.{hint}")
    return {field: getattr(conf, field, default) for field, default in FIELDS.items()}


def _check_fields(conf: Mapping[Any, Any]) -> None:
    old = [name for name in conf if name in _OF_1]
    if old:
        raise ValueError(
            f"conf has {', '.join(map(repr, old))}, so it is a configuration of "
            f"neural-compressor 1.x. Write one of 2.x; {_BECAME}."
        )
    for name in conf:
        if name in FIELDS:
            continue
        hint = did_you_mean(str(name), FIELDS)
        for part, (_, names) in _PARTS.items():
            if name in names:
                hint = f" It is one of {part}: write {{{part!r}: {{{name!r}: {conf[name]!r}}}}}."
        raise ValueError(f"There is no field {name!r} in a PostTrainingQuantConfig.{hint}")


def part_of(conf: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The fields of a criterion that are said, of an object or a mapping.

    Args:
        conf:
            All fields of the configuration.
        part:
            Which of them: ``"accuracy_criterion"`` or ``"tuning_criterion"``.

    Raises:
        TypeError:
            If it is no such criterion.
        ValueError:
            If a mapping has a field that does not exist.
    """
    given = conf[part]
    kind, names = _PARTS[part]
    if given is None:
        return {}
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise ValueError(f"{part} has no field {name!r}.{_meant(part, name, given)}")
        return dict(given)
    if not isinstance(given, type) and all(hasattr(given, name) for name in names[:3]):
        return {name: getattr(given, name) for name in names if hasattr(given, name)}
    raise TypeError(
        f"{part} must be {kind} or a mapping with its fields "
        f"({', '.join(names)}), but got {given!r}.{_instead(part, given)}"
    )


def _meant(part: str, name: object, given: Mapping[Any, Any]) -> str:
    """What may have been meant by a field that a criterion does not have."""
    if part == "accuracy_criterion" and name in ("relative", "absolute"):
        return (
            f" That is the form of neural-compressor 1.x: write {{'criterion': {name!r}, "
            f"'tolerable_loss': {given[name]!r}}}."
        )
    for other, (_, names) in _PARTS.items():
        if other != part and name in names:
            return f" It is one of {other}."
    return did_you_mean(str(name), _PARTS[part][1])


def _instead(part: str, given: object) -> str:
    """How to write a criterion of which something else was given."""
    if isinstance(given, type):
        return f" Give an instance, {given.__name__}(...)."
    for other, (kind, names) in _PARTS.items():
        if other != part and all(hasattr(given, name) for name in names[:3]):
            return f" That is {kind}, the value of {other}."
    if part == "tuning_criterion":
        name = given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given
        return f" For a strategy write {{'strategy': {name!r}}}." if isinstance(name, str) else ""
    number = given
    kind = ""
    if isinstance(given, (list, tuple)) and len(given) == 2 and isinstance(given[0], str):
        kind, number = f"'criterion': {given[0]!r}, ", given[1]
    if isinstance(number, bool) or not isinstance(number, Real):
        return ""
    return f" For a tolerable loss write {{{kind}'tolerable_loss': {float(number):g}}}."
