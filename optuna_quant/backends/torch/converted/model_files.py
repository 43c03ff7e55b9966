"""What all files of converted programs have in common: errors, checks and the ops in them."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
import struct
from typing import IO
from typing import TYPE_CHECKING
from typing import Any
import zipfile
import zlib

from optuna_quant.backends.torch.converted.writing import WrittenOp


if TYPE_CHECKING:
    import os


CURE = "Save the model again, or copy the file again."

# Of a damaged file the standard library raises any of these.
NO_ARCHIVE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
)


class ModelFileError(ValueError):
    """A file is not a converted program, or cannot be read."""


def check_whole(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    """Check the sums of an archive, which PyTorch does not: a weight may be damaged.

    Args:
        file:
            The file.
        path:
            What it is called.

    Raises:
        ModelFileError:
            If it is no archive, or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except NO_ARCHIVE as error:
        raise ModelFileError(f"{refused(path)}: {_not_an_archive(file, path, error)}") from error
    if damaged is not None:
        raise ModelFileError(f"{str(path)!r} is damaged, in its part {damaged!r}. {CURE}")


def _not_an_archive(file: IO[bytes], path: str | os.PathLike[str], error: Exception) -> str:
    """What a file is that is no archive, or not all of one, and what to do."""
    file.seek(0)
    start = file.read(4)
    if not start:
        return f"it is empty. {CURE}"
    if start == b"PK\x03\x04":
        return f"it is cut short or damaged ({first_line(error)}). {CURE}"
    if Path(path).suffix == ".onnx":
        return (
            "it is an ONNX model by its name. optuna_quant.backends.onnxruntime.load_module loads "
            "one that was saved for ONNX Runtime."
        )
    return f"{first_line(error)}. {CURE}"


@contextmanager
def telling_what_is_missing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a :class:`ModelFileError` where a record of a file lacks something.

    Args:
        path:
            The file.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"{refused(path)}: its record lacks something ({first_line(error)}). {CURE}"
        ) from error


def check_format(given: object, known: int, path: str | os.PathLike[str]) -> None:
    """Refuse a file of another form.

    Args:
        given:
            The version of the form that the file has.
        known:
            The one that is read.
        path:
            The file.

    Raises:
        ModelFileError:
            If they differ.
    """
    if given != known:
        raise ModelFileError(
            f"{refused(path)}: its format is {given!r}, and this version of optuna_quant reads "
            f"{known}. Save the model again with this one, or load it with that which wrote it."
        )


def op_of_record(value: Mapping[str, Any]) -> WrittenOp:
    """An op as :func:`dataclasses.asdict` and JSON have left it."""
    shape = value["shape"]
    return WrittenOp(**{**value, "shape": None if shape is None else tuple(shape)})


def refused(path: str | os.PathLike[str]) -> str:
    """How a message about a file of another kind begins."""
    return f"{str(path)!r} is not a program that optuna_quant has saved for PyTorch"


def first_line(error: Exception) -> str:
    """What an error says, in a line without its full stop."""
    lines = str(error).splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__
