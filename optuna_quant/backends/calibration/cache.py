"""Calibration statistics on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.atomic_files import aside
from optuna_quant._common.sealed_bytes import array_bytes
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics


if TYPE_CHECKING:
    from typing import Any


class CalibrationCache:
    """Calibration statistics on disk, one ``.npz`` file for each key.

    Files are written aside and moved into place, so that any number of processes may share the
    directory. A file that cannot be read is ignored with a warning and replaced.

    Args:
        directory:
            Where the files are; made when first needed.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self._directory / f"calibration-{key}.npz"

    def load(self, key: str) -> CalibrationStatistics | None:
        """Return the statistics stored under a key, or None."""
        path = self.path(key)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return CalibrationStatistics.from_arrays(arrays, int(arrays["samples"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # a damaged file fails in many ways, all of them here
            warn_user(
                f"The calibration cache file {path} cannot be read ({error}); calibrating again."
            )
            return None

    def store(self, key: str, statistics: CalibrationStatistics) -> None:
        """Store statistics under a key. A failure to write is only a warning."""
        path = self.path(key)
        arrays: dict[str, Any] = {
            "samples": np.array(statistics.samples),
            **statistics.to_arrays(),
        }
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with aside(path) as file:
                file.write(array_bytes(arrays, compressed=True))
                file.move_to(path)
        except OSError as error:
            warn_user(f"The calibration statistics cannot be stored in {path}: {error}")
