"""Which members a protocol has, and which of them an object has."""

from __future__ import annotations

from functools import cache
import inspect


@cache
def members_of(protocol: type) -> tuple[str, ...]:
    """The names of a protocol's members, its own before those of what it derives from."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False)]
    names = [name for base in bases for name in vars(base) if not name.startswith("_")]
    return tuple(dict.fromkeys(names))


def has_member(value: object, name: str) -> bool:
    """Whether there is a member; what is computed is not, unless it is found in no other way."""
    nothing = object()
    found = inspect.getattr_static(value, name, nothing)
    return found is not nothing or hasattr(value, name)
