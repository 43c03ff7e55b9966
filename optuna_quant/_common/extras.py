"""How the packages of an extra are installed."""

from __future__ import annotations


def install_hint(extra: str) -> str:
    """The command that installs an extra, for messages.

    Args:
        extra:
            The extra's name.
    """
    return f'pip install "optuna_quant[{extra}]" (in a clone of it: pip install ".[{extra}]")'
