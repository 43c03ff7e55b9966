"""The names of the options that a sampler takes."""

from __future__ import annotations

from functools import lru_cache
import inspect

from optuna_quant._common.nearest import did_you_mean


# Each search asks for those of several classes, and to read signatures takes long.
@lru_cache(maxsize=64)
def keywords_of(cls: type) -> tuple[str, ...]:
    """The keyword-only arguments of a class, with those that it passes on to its base classes.

    Args:
        cls:
            The class.
    """
    found: dict[str, None] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        found.update(
            dict.fromkeys(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        )
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return tuple(found)


def refuse_unknown(cls: type, name: str) -> None:
    """Refuse an argument that neither a class nor any of its base classes takes.

    Args:
        cls:
            The class.
        name:
            The name of the argument.

    Raises:
        TypeError:
            Always.
    """
    known = keywords_of(cls)
    raise TypeError(
        f"{cls.__name__} has no argument {name!r}.{did_you_mean(name, known)} It has: "
        f"{', '.join(known)}."
    )
