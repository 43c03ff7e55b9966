"""The registry of strategies: those of this package, of the user and of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from importlib.metadata import entry_points
import re
from typing import TypeVar

from optuna_quant.samplers._engine.base import QuantSampler


ENTRY_POINTS = "optuna_quant.strategies"
"""The group of entry points under which a package announces its strategies."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ATTRIBUTE = "_strategy_name"
_KEPT = "_registered_strategies"

T = TypeVar("T", bound=type[QuantSampler])


def register_strategy(name: str) -> Callable[[T], T]:
    """Class decorator that makes a sampler a strategy: ``strategy="name"`` then means it.

    The class must take the tuning space and the options of
    :class:`~optuna_quant.samplers.QuantSampler`. A package announces its strategies with an entry
    point of the group ``optuna_quant.strategies``, whose name is the strategy's and whose value is
    the class; then it need not be imported.

    Example:

        .. code-block:: python

            @register_strategy("half")
            class HalfQuantSampler(StagedQuantSampler):
                def plan(self, space):
                    ops = [op for t in space.tunables for op in t.ops]
                    yield Stage("half", [space.default().with_fallback(*ops[::2])])

    Args:
        name:
            The strategy's name: lower-case letters, digits and underscores.

    Raises:
        TypeError:
            If it decorates something else than a subclass of ``QuantSampler``, or one that lacks
            a method such as ``plan``; or if there is no name.
        ValueError:
            If the name is no such name, or another class has it.
    """
    if isinstance(name, type):
        raise TypeError(
            f"register_strategy needs a name: write @register_strategy("
            f"{_snake_case(name.__name__)!r}) above the class {name.__name__}."
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "The name of a strategy must consist of lower-case letters, digits and "
            f"underscores, but got {name!r}."
        )

    def decorate(cls: T) -> T:
        if not (isinstance(cls, type) and issubclass(cls, QuantSampler)):
            raise TypeError(
                "A strategy must be a subclass of QuantSampler, such as StagedQuantSampler, "
                f"but got {cls!r}."
            )
        _check_methods(cls)
        taken = _imported().get(name)
        # A module that is loaded again defines the same class again.
        if taken is not None and _place(taken) != _place(cls):
            raise ValueError(f"There is a strategy {name!r} already: {taken!r}.")
        setattr(cls, _ATTRIBUTE, name)
        # Python forgets a class to which nothing refers, such as one of a function that has ended.
        root: type = QuantSampler
        setattr(root, _KEPT, {**getattr(root, _KEPT, {}), name: cls})
        return cls

    return decorate


def _check_methods(cls: type) -> None:
    """Refuse a class that lacks methods.

    Raises:
        TypeError:
            If it does.
    """
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if not missing:
        return
    hint = ""
    if hasattr(cls, "next_tune_cfg"):
        hint = (
            " next_tune_cfg is neural-compressor's: yield stages of configurations from "
            "plan(self, space), see docs/strategies/own.md."
        )
    raise TypeError(f"The strategy {cls.__name__} has no method {', '.join(missing)}.{hint}")


def _snake_case(name: str) -> str:
    stem = name.removesuffix("TuneStrategy").removesuffix("QuantSampler") or name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()


def strategies() -> dict[str, type[QuantSampler]]:
    """The sampler of each strategy, by the strategy's name, sorted."""
    found = _imported()
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in found:
            found[entry.name] = entry.load()
    return dict(sorted(found.items()))


def _imported() -> dict[str, type[QuantSampler]]:
    """The strategies whose classes exist in this process; of equal ones the newest."""
    root: type = QuantSampler  # As a plain type: an abstract class cannot be type[QuantSampler].
    return {cls.__dict__[_ATTRIBUTE]: cls for cls in _subclasses(root)}


def _subclasses(cls: type) -> Iterator[type[QuantSampler]]:
    subclass: type
    for subclass in cls.__subclasses__():
        if _ATTRIBUTE in subclass.__dict__:
            yield subclass
        yield from _subclasses(subclass)


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
