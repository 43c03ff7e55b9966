"""The parameters of trained modules, kept for later and for other workers."""

from __future__ import annotations

from contextlib import suppress
import hashlib
import io
import os
from pathlib import Path
import shutil
import tempfile
from threading import Lock
from typing import TYPE_CHECKING
import weakref

import torch

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.base import atomic_write


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_quant.backends.base import KeepsParts
    from optuna_quant.backends.torch.qat.prepared import PreparedModule


_DIGEST = 32
"""Bytes of a hash that stand before what is kept elsewhere."""


class KeptTrainings:
    """What was trained, in files of this process and, if there is one, where all workers look.

    The files are in a temporary folder until the object or the process ends. None is dropped
    before: another training would take as long again, and may give other weights.
    """

    def __init__(self) -> None:
        self.shared: KeepsParts | None = None
        self._folder: Path | None = None
        self._process = os.getpid()
        self._lock = Lock()

    def get(self, name: str, compute: Callable[[], bytes], *, nbytes: int) -> bytes:
        """What is kept under a name: the first that was kept by any worker, or computed now.

        Args:
            name:
                The name.
            compute:
                Computes it.
            nbytes:
                About how large it is.
        """
        found = self.find(name)
        if found is not None:
            return found
        data = compute() if self.shared is None else self._shared(name, compute, nbytes)
        atomic_write(self._path(name), data)
        return data

    def find(self, name: str) -> bytes | None:
        """What this process has kept under a name, or has looked up before."""
        with suppress(FileNotFoundError):
            return self._path(name).read_bytes()
        return None

    def _shared(self, name: str, compute: Callable[[], bytes], nbytes: int) -> bytes:
        assert self.shared is not None
        data = self.shared.get(name, lambda: _with_digest(compute()), nbytes=nbytes)
        if data == _with_digest(data[_DIGEST:]):
            return data[_DIGEST:]
        warn_user("What was trained and kept is damaged; training again.")
        return compute()

    def _path(self, name: str) -> Path:
        with self._lock:
            if self._folder is None or self._process != os.getpid():
                # A process that was forked has its own: each removes its folder when it ends.
                self._folder = Path(tempfile.mkdtemp(prefix="optuna_quant_"))
                self._process = os.getpid()
                weakref.finalize(self, _remove, self._folder, self._process)
            return self._folder / hashlib.sha256(name.encode()).hexdigest()


def _remove(folder: Path, process: int) -> None:
    """Remove the folder of a process, unless this is another one, which was forked from it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _with_digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest() + data


def packed(module: PreparedModule) -> bytes:
    """What was trained, as bytes.

    Args:
        module:
            The module.
    """
    found = io.BytesIO()
    torch.save(module.state_dict(), found)
    return found.getvalue()


def restore(module: PreparedModule, data: bytes) -> None:
    """Give a module what another one was trained to.

    Args:
        module:
            A module of the same configuration.
        data:
            What :func:`packed` gives.
    """
    module.load_state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def nbytes_of(module: PreparedModule) -> int:
    """About how many bytes :func:`packed` gives."""
    return sum(each.numel() * each.element_size() for each in module.state_dict().values())
