"""Converted programs in files."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
import dataclasses
import io
import json
from pathlib import Path
import struct
import tempfile
from types import ModuleType
from typing import IO
from typing import TYPE_CHECKING
from typing import Any
import zipfile
import zlib

import torch

from optuna_quant.backends.base.files import atomic_write
from optuna_quant.backends.torch.converted.compiling import has_compiler
from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
from optuna_quant.backends.torch.converted.exporting import export_graph
from optuna_quant.backends.torch.converted.lowering import packed_program
from optuna_quant.backends.torch.converted.lowering import passes_for
from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao
from optuna_quant.backends.torch.converted.writing import WrittenOp
from optuna_quant.backends.torch_program.form_json import form_from_json
from optuna_quant.backends.torch_program.form_json import form_to_json
from optuna_quant.backends.torch_program.quiet import without_idle_output


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence
    import os

    from optuna_quant.backends.torch_program.call import CallForm


FORMAT = 1
"""The version of the form of files; another one is not read."""

_RECORD = "optuna_quant.json"
_CURE = "Save the model again, or copy the file again."
# Of a damaged file the standard library raises any of these.
_NO_ARCHIVE = (
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


def save_program(converted: ConvertedProgram, path: str | os.PathLike[str]) -> None:
    """Write a converted program to a file that :func:`torch.export.load` reads, too.

    The file is replaced as a whole or left as it was. It has no float weights of quantized ops.

    Args:
        converted:
            The program.
        path:
            The file.

    Raises:
        ValueError:
            If the module's arguments or outputs are in a class that is not registered by name.
    """
    content = io.BytesIO()
    with without_idle_output():
        torch.export.save(converted.program, content, extra_files={_RECORD: _record(converted)})
    atomic_write(path, content.getvalue())


def save_state_dict(converted: ConvertedProgram, path: str | os.PathLike[str]) -> None:
    """Write the integers, scales and floats of a converted program, with its configuration.

    :func:`torch.load` gives a dictionary with ``"state_dict"``, whose names are the paths of the
    module's parameters, and ``"configuration"``, the JSON text of the configuration.

    Args:
        converted:
            The program.
        path:
            The file, which is replaced as a whole or left as it was.
    """
    content = io.BytesIO()
    found = {
        "format": FORMAT,
        "configuration": converted.configuration,
        "ops": json.dumps([dataclasses.asdict(op) for op in converted.ops]),
        "state_dict": dict(converted.program.state_dict),
    }
    torch.save(found, content)
    atomic_write(path, content.getvalue())


def save_package(converted: ConvertedProgram, path: str | os.PathLike[str]) -> None:
    """Compile a converted program ahead of time, for this kind of processor.

    The package runs without Python as well (``AOTIModelPackageLoader``).

    Args:
        converted:
            The program.
        path:
            The file, which is replaced as a whole or left as it was; it has to end with
            ``".pt2"``.

    Raises:
        FileNotFoundError:
            If the directory does not exist.
        RuntimeError:
            If there is no C++ compiler.
        ValueError:
            If the path does not end with ``".pt2"``.
    """
    if Path(path).suffix != ".pt2":
        raise ValueError(f"The path of a package must end with '.pt2', but got {str(path)!r}.")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"There is no directory {str(Path(path).parent)!r}.")
    if not has_compiler():
        raise RuntimeError(
            "A package is compiled, and there is no C++ compiler: install g++ or clang, or save "
            "the program, which needs none."
        )
    passes_for(converted.ops)
    packed = packed_program(converted.program, converted.ops)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        place = str(Path(folder) / "package.pt2")
        with quiet_torchao(), without_idle_output():
            program = export_graph(packed, converted.program)
            _inductor().aoti_compile_and_package(
                program,
                package_path=place,
                inductor_configs={
                    "freezing": True,
                    "aot_inductor.metadata": {_RECORD: _record(converted)},
                },
            )
        atomic_write(path, Path(place).read_bytes())


def read_program(path: str | os.PathLike[str]) -> ConvertedProgram:
    """Read a converted program.

    Args:
        path:
            What :func:`save_program` wrote.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ModelFileError:
            If it is something else, is damaged, or comes from a version that this one cannot
            read.
        ValueError:
            If the module's arguments or outputs are in a class that is not registered.
    """
    content = Path(path).read_bytes()
    _check_whole(io.BytesIO(content), path)
    _check_exported(io.BytesIO(content), path)
    extra = {_RECORD: ""}
    try:
        with without_idle_output():
            program = torch.export.load(io.BytesIO(content), extra_files=extra)
    except Exception as error:
        raise ModelFileError(f"{_refused(path)}: {_first_line(error)}.") from error
    record = _parsed(extra[_RECORD], path)
    form = _form(record, path)
    with _telling_what_is_missing(path):
        ops = tuple(_op(each) for each in record["ops"])
        return ConvertedProgram(program, ops, form, record["configuration"])


def read_package(
    path: str | os.PathLike[str],
) -> tuple[Callable[..., Sequence[Any]], CallForm] | None:
    """Read a package; None if the file is not one.

    Args:
        path:
            What :func:`save_package` wrote.

    Raises:
        ModelFileError:
            If it is a package of something else.
    """
    if Path(path).is_dir():
        raise ModelFileError(f"{_refused(path)}: it is a directory.")
    with open(path, "rb") as file:
        if not _is_package(file):
            return None
        _check_whole(file, path)
    try:
        with quiet_torchao(), without_idle_output():
            runner = _inductor().aoti_load_package(str(path))
        metadata = runner.get_metadata()
    except Exception as error:
        raise ModelFileError(f"{_refused(path)}: {_first_line(error)}.") from error
    return runner, _form(_parsed(metadata.get(_RECORD, ""), path), path)


def _inductor() -> ModuleType:
    # The compiler takes seconds to import.
    import torch._inductor

    return torch._inductor


def _is_package(file: IO[bytes]) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/data/aotinductor/" in name for name in archive.namelist())
    except _NO_ARCHIVE:
        return False


def _check_exported(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    """Refuse an archive that is no exported program, of which PyTorch says only where it fails."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        raise ModelFileError(
            f"{_refused(path)}: it is one of torch.save, such as a state dict. What result.save "
            "has written is loaded here."
        )


def _check_whole(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    """Check the sums of an archive, which PyTorch does not: a weight may be damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except _NO_ARCHIVE as error:
        raise ModelFileError(f"{_refused(path)}: {_not_an_archive(file, path, error)}") from error
    if damaged is not None:
        raise ModelFileError(f"{str(path)!r} is damaged, in its part {damaged!r}. {_CURE}")


def _not_an_archive(file: IO[bytes], path: str | os.PathLike[str], error: Exception) -> str:
    """What a file is that is no archive, or not all of one, and what to do."""
    file.seek(0)
    start = file.read(4)
    if not start:
        return f"it is empty. {_CURE}"
    if start == b"PK\x03\x04":
        return f"it is cut short or damaged ({_first_line(error)}). {_CURE}"
    if Path(path).suffix == ".onnx":
        return (
            "it is an ONNX model by its name. optuna_quant.backends.onnxruntime.load_module loads "
            "one that was saved for ONNX Runtime."
        )
    return f"{_first_line(error)}. {_CURE}"


def _record(converted: ConvertedProgram) -> str:
    record = {
        "format": FORMAT,
        "configuration": converted.configuration,
        "call": form_to_json(converted.form),
        "ops": [dataclasses.asdict(op) for op in converted.ops],
    }
    return json.dumps(record, sort_keys=True)


def _parsed(text: str | bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    if not text:
        raise ModelFileError(f"{_refused(path)}: it has another origin.")
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError as error:  # Also if it is no text.
        raise ModelFileError(f"{_refused(path)}: its record cannot be read. {_CURE}") from error
    if not isinstance(record, dict):
        raise ModelFileError(f"{_refused(path)}: its record is no dictionary. {_CURE}")
    if record.get("format") != FORMAT:
        raise ModelFileError(
            f"{_refused(path)}: its format is {record.get('format')!r}, and this version of "
            f"optuna_quant reads {FORMAT}."
        )
    return record


def _form(record: Mapping[str, Any], path: str | os.PathLike[str]) -> CallForm:
    """How the module is called; that a class is not registered is an error of its own."""
    with _telling_what_is_missing(path):
        return form_from_json(record["call"])


@contextmanager
def _telling_what_is_missing(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"{_refused(path)}: its record lacks something ({_first_line(error)}). {_CURE}"
        ) from error


def _op(value: Mapping[str, Any]) -> WrittenOp:
    shape = value["shape"]
    return WrittenOp(**{**value, "shape": None if shape is None else tuple(shape)})


def _refused(path: str | os.PathLike[str]) -> str:
    return f"{str(path)!r} is not a program that optuna_quant has saved for PyTorch"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__
