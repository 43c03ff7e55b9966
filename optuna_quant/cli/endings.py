"""Refuse files that are to be written and have an ending that says something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optuna_quant._common.nearest import nearest


MODELS = (".onnx",)
REPORTS = (".csv",)


def check_ending(flag: str, name: str | Path | None, known: Sequence[str]) -> None:
    """Refuse a file whose ending is not one of those that can be written.

    Args:
        flag:
            The flag that names it, for the message.
        name:
            The file; :obj:`None` if there is none.
        known:
            The endings.

    Raises:
        ValueError:
            If it has another ending, or none.
    """
    if name is None:
        return
    path = Path(name)
    if path.suffix.lower() in known:
        return
    meant = nearest(path.suffix, known) or known[0]
    has = f"the ending {path.suffix!r}" if path.suffix else "no ending"
    raise ValueError(
        f"{flag}: {str(name)!r} has {has}, but it must be {' or '.join(known)}. Did you mean "
        f"{path.with_suffix(meant).name!r}?"
    )
