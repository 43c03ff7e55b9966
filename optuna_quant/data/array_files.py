"""Reading arrays from NumPy files, with errors that name the file, what is wrong and the cure."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from pathlib import Path
import pickle
from typing import TYPE_CHECKING
from typing import Any
import zipfile
import zlib

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
_LFS = b"version https://git-lfs"
_NPY = b"\x93NUMPY"
_ZIP = b"PK"


def read_npz(
    path: Path, what: str, names: Collection[str] | None = None
) -> Mapping[str, NDArray[Any]]:
    """Read an ``.npz`` file.

    Args:
        path:
            The file.
        what:
            What it is to the user, as the start of a sentence: ``"The evaluation data"``.
        names:
            The arrays that are read, those of them that are there; all by default.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ValueError:
            If it cannot be read, or an array is not one of numbers or strings.
    """
    _check_content(path, what, _ZIP)
    with _opened(path, what) as file:
        wanted = [name for name in file.files if names is None or name in names]
        return {name: _member(file, name, path, what) for name in wanted}


def npz_names(path: Path, what: str) -> list[str]:
    """The names of the arrays in an ``.npz`` file; for the arguments and errors see above."""
    _check_content(path, what, _ZIP)
    with _opened(path, what) as file:
        return list(file.files)


def read_npy(path: Path, what: str) -> NDArray[Any]:
    """Map an ``.npy`` file; for the arguments and errors see :func:`read_npz`."""
    _check_content(path, what, _NPY)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, what, _reason(error, "it")) from error
    return array


def _opened(path: Path, what: str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, what, _reason(error, "it")) from error


def _member(file: Any, name: str, path: Path, what: str) -> NDArray[Any]:
    try:
        value = file[name]
    except Exception as error:
        raise _unreadable(path, what, _reason(error, f"its array {name!r}")) from error
    if not isinstance(value, np.ndarray):
        raise _unreadable(
            path,
            what,
            f"its member {name!r} is not an array; write the file with np.savez(FILE, NAME=array)",
        )
    return value


def _reason(error: Exception, subject: str) -> str:
    if isinstance(error, ValueError) and "allow_pickle" in str(error):
        return (
            f"{subject} holds Python objects instead of numbers, as arrays of strings that come "
            "from pandas do, and samples of different shapes; write class numbers for strings "
            "(or array.astype(str)), and give samples one shape or pass a list of batches in "
            "Python"
        )
    if isinstance(error, (*_DAMAGED, pickle.UnpicklingError, ValueError, KeyError)):
        text = " ".join(str(error).split())
        return f"{subject} is damaged or truncated ({text}); copy or write it again"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _check_content(path: Path, what: str, magic: bytes) -> None:
    """Refuse a file that begins as no such file does."""
    kind = ".npz" if magic == _ZIP else ".npy"
    write = "np.savez(FILE, NAME=array)" if magic == _ZIP else "np.save(FILE, array)"
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {str(path)!r}: there is no such file.") from None
    except OSError as error:
        raise _unreadable(path, what, error.strerror or str(error)) from error
    if start.startswith(magic):
        return
    if not start:
        reason = f"it is empty; write it again with {write}"
    elif start.startswith(_LFS):
        reason = "it is a Git LFS pointer, not the data; run: git lfs pull"
    elif start.startswith(_NPY):
        reason = (
            f"it holds one array, like an .npy file, whatever its name; write it with {write}, "
            "where NAME is the model's input"
        )
    elif start.startswith(_ZIP):
        reason = f"it is a zip archive, like an .npz file; write it with {write}"
    else:
        reason = f"it is not an {kind} file, whatever its name; write it with {write}"
    raise _unreadable(path, what, reason)


def _unreadable(path: Path, what: str, reason: str) -> ValueError:
    return ValueError(f"{what} {str(path)!r} cannot be read: {reason}.")
