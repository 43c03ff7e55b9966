"""Says which members of a protocol an object lacks."""

from __future__ import annotations

from optuna_quant._common.protocol_members import members_of


def lacks(value: object, protocol: type) -> str:
    """Say which members of a protocol an object lacks.

    Args:
        value:
            The object.
        protocol:
            The protocol.
    """
    missing = sorted(name for name in members_of(protocol) if not hasattr(value, name))
    return f"{type(value).__name__} is no {protocol.__name__}: it lacks {', '.join(missing)}."
