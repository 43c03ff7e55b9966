"""Says which members of a protocol an object lacks."""

from __future__ import annotations


def lacks(value: object, protocol: type) -> str:
    """Say which members of a protocol an object lacks.

    Args:
        value:
            The object.
        protocol:
            The protocol.
    """
    members = {
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False)
        for name in vars(base)
        if not name.startswith("_")
    }
    missing = sorted(name for name in members if not hasattr(value, name))
    return f"{type(value).__name__} is no {protocol.__name__}: it lacks {', '.join(missing)}."
