"""What a model needs to be saved as :meth:`Model.save` promises."""

from __future__ import annotations

import os
from pathlib import Path

from optuna_quant._common.atomic_files import aside


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that is replaced as a whole: at any time there is the old one or the new one.

    It is written beside its place, with the permissions that new files have (the umask counts),
    brought onto the disk, and then moved.

    Args:
        path:
            The file.
        content:
            What it is to contain.

    Raises:
        OSError:
            If it cannot be written.
    """
    place = Path(path)
    with aside(place) as file:
        file.write(content)
        file.move_to(place)
