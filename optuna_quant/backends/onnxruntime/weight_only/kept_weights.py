"""Where quantized weights that take long to compute are kept beside a process's memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_quant._common.atomic_files import aside
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.onnxruntime.weight_only.weight_bytes import pack_weight
from optuna_quant.backends.onnxruntime.weight_only.weight_bytes import unpack_weight


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_quant.backends.base import KeepsParts
    from optuna_quant.backends.onnxruntime.weight_only.packing import PackedWeight


class KeptWeights:
    """Keeps weights in a folder, and with other workers.

    Args:
        directory:
            The folder; None for none.

    Attributes:
        shared:
            Keeps them for other workers; None if there is no such place.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = None if directory is None else Path(directory)
        self.shared: KeepsParts | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything is kept."""
        return self._directory is not None or self.shared is not None

    def get(self, key: str, compute: Callable[[], PackedWeight], *, nbytes: int) -> PackedWeight:
        """A weight: kept, or computed and then kept.

        Args:
            key:
                A hash of all that it depends on.
            compute:
                Computes it.
            nbytes:
                About how large it is.
        """
        path = None if self._directory is None else self._directory / f"weight-{key}.npz"
        found = None if path is None else _load(path)
        if found is None:
            found = self._shared(key, compute, nbytes)
            if path is not None:
                _store(path, found)
        return found

    def _shared(self, key: str, compute: Callable[[], PackedWeight], nbytes: int) -> PackedWeight:
        if self.shared is None:
            return compute()
        data = self.shared.get(f"weight:{key[:32]}", lambda: pack_weight(compute()), nbytes=nbytes)
        try:
            return unpack_weight(data)
        except Exception as error:  # damaged bytes fail in many ways, all of them here
            warn_user(
                f"A quantized weight of another worker cannot be read ({error}); quantizing again."
            )
            return compute()


def _load(path: Path) -> PackedWeight | None:
    try:
        return unpack_weight(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file fails in many ways, all of them here
        warn_user(
            f"The file {path} of a quantized weight cannot be read ({error}); quantizing again."
        )
        return None


def _store(path: Path, weight: PackedWeight) -> None:
    """Keep a weight. A failure to write is only a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as file:
            file.write(pack_weight(weight))
            file.move_to(path)
    except OSError as error:
        warn_user(f"A quantized weight cannot be stored in {path}: {error}")
