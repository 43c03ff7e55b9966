"""What a configuration of neural-compressor 2.x says of the search: criterion, strategy, aim."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from optuna_quant.compat._inc_fields import Warn
from optuna_quant.compat._inc_fields import part_of
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.metrics.criterion import check_is_no_percentage
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.strategies import choose_strategy


_MEASURES = MappingProxyType({"performance": "latency", "modelsize": "size", "footprint": "size"})
_LEVELS = MappingProxyType({"auto": "auto", 0: "conservative"})
_NOT_HERE = "sigopt"
_LIMITS = ("timeout", "max_trials")


def accuracy_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the accuracy criterion stands for.

    Args:
        fields:
            All fields of the configuration.

    Raises:
        TypeError:
            If a value has another type.
        ValueError:
            If a value is out of its range, or every model would be good enough.
    """
    criterion = AccuracyCriterion(**part_of(fields, "accuracy_criterion"))
    check_is_no_percentage(criterion)
    found = {"criterion": criterion.criterion, "tolerable_loss": criterion.tolerable_loss}
    # True is the default there for every metric; here a named metric knows its direction.
    return found if criterion.higher_is_better else {"higher_is_better": False, **found}


def search_options(fields: Mapping[str, Any], *, same_order: bool, warn: Warn) -> dict[str, Any]:
    """The options that the tuning criterion and the level stand for.

    Args:
        fields:
            All fields of the configuration.
        same_order:
            Whether the strategy tries configurations in neural-compressor's order.
        warn:
            Notes a warning.

    Raises:
        TypeError:
            If a value has another type.
        ValueError:
            If a value is out of its range.
    """
    said = part_of(fields, "tuning_criterion")
    # Only a mapping tells that the default was written.
    is_named = isinstance(fields["tuning_criterion"], Mapping) and "strategy" in said
    strategy, level = said.pop("strategy", "basic"), fields["quant_level"]
    if isinstance(level, bool) or level not in ("auto", 0, 1):
        raise ValueError(f"quant_level must be 'auto', 0 or 1, but got {level!r}.")
    kwargs = _strategy_kwargs(said.pop("strategy_kwargs", None))
    objective = _objective(said.pop("objective", None), warn)
    if strategy == _NOT_HERE:
        strategy = "tpe"
        account = [name for name in kwargs if str(name).startswith(_NOT_HERE)]
        kwargs = {name: value for name, value in kwargs.items() if name not in account}
        without = f" {', '.join(account)}: left out." if account else ""
        warn(
            f"strategy='sigopt' is not available: 'tpe' is used, which needs no account.{without}"
        )
    if same_order:
        kwargs["compat"] = "inc2"
    # The levels stand for strategies; only with level 1 a name counts beside it.
    found: dict[str, Any] = {"quant_level": level}
    if level == 1:
        found["strategy"] = strategy
    elif level == "auto" and (is_named or strategy != "basic"):
        warn(
            f"quant_level='auto' with strategy={strategy!r}: the search begins with {strategy!r} "
            "at once, without the conservative strategy before it."
        )
        found = {"strategy": strategy}
    elif level == 0 and (is_named or strategy != "basic") and strategy != _LEVELS[level]:
        warn(
            f"quant_level=0 stands for the conservative strategy, so that strategy={strategy!r} "
            "does not count; with quant_level=1 it does."
        )
        kwargs = {name: value for name, value in kwargs.items() if name == "compat"}
    choose_strategy(None, found.get("strategy"))  # Refuses a name that does not exist.
    found |= {"strategy_kwargs": kwargs, "objective": objective}
    found = {name: value for name, value in found.items() if value not in (None, {})}
    # Of these None says something: no limit.
    found |= {name: said[name] for name in _LIMITS if name in said}
    options = {name: value for name, value in found.items() if name != "quant_level"}
    seconds = TuningCriterion(**options).seconds  # A value that is out of its range is found now.
    if seconds:
        warn(
            f"timeout={said['timeout']}: neural-compressor 2 searched until max_trials; here the "
            "search ends after so many seconds, with the best model found."
        )
    return found


def _strategy_kwargs(given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            "strategy_kwargs must be a mapping of options of the strategy, such as "
            f"{{'confidence_batches': 2}}, but got {given!r}."
        )
    return dict(given)


def _objective(given: object, warn: Warn) -> str | dict[str, float] | None:
    weights: Sequence[float] | None = None
    if isinstance(given, Mapping):
        if given.get("higher_is_better") is not None:
            warn("objective: higher_is_better is not used, time and size are always minimized.")
        weights, given = given.get("weight"), given.get("objective")
    given = (given,) if isinstance(given, str) else given or ()
    if not isinstance(given, Iterable):
        raise ValueError(f"objective must be a name, or a list of names, but got {given!r}.")
    names = list(given)
    weights = [1.0] * len(names) if weights is None else list(weights)
    if len(weights) != len(names):
        raise ValueError(
            f"objective: there must be a weight for each objective, but there are {len(weights)} "
            f"({weights!r}) for {len(names)} ({names!r})."
        )
    found: dict[str, float] = {}
    for name, weight in zip(names, weights, strict=True):
        if name == "accuracy":
            warn("objective='accuracy' is left out: the criterion says how good is good enough.")
        elif name not in _MEASURES:
            raise ValueError(
                f"objective must be among performance, accuracy, modelsize and footprint, but "
                f"got {name!r}."
            )
        else:
            found[_MEASURES[name]] = found.get(_MEASURES[name], 0.0) + weight
    if not found or list(names) == ["performance"]:
        return None  # The default: latency, where the costs of ops predict it.
    return next(iter(found)) if len(found) == 1 else found
