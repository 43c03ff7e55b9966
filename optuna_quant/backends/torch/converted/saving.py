"""Converted programs in files."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import io
import json
from pathlib import Path
import tempfile
from types import ModuleType
from typing import IO
from typing import TYPE_CHECKING
from typing import Any
import zipfile

import torch

from optuna_quant.backends.base.files import atomic_write
from optuna_quant.backends.torch.converted.compiling import has_compiler
from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
from optuna_quant.backends.torch.converted.exporting import export_graph
from optuna_quant.backends.torch.converted.lowering import packed_program
from optuna_quant.backends.torch.converted.lowering import passes_for
from optuna_quant.backends.torch.converted.model_files import CURE
from optuna_quant.backends.torch.converted.model_files import NO_ARCHIVE
from optuna_quant.backends.torch.converted.model_files import ModelFileError
from optuna_quant.backends.torch.converted.model_files import check_format
from optuna_quant.backends.torch.converted.model_files import check_whole
from optuna_quant.backends.torch.converted.model_files import first_line
from optuna_quant.backends.torch.converted.model_files import op_of_record
from optuna_quant.backends.torch.converted.model_files import refused
from optuna_quant.backends.torch.converted.model_files import telling_what_is_missing
from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao
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
    check_whole(io.BytesIO(content), path)
    extra = {_RECORD: ""}
    try:
        with without_idle_output():
            program = torch.export.load(io.BytesIO(content), extra_files=extra)
    except Exception as error:
        raise ModelFileError(f"{refused(path)}: {first_line(error)}.") from error
    record = _parsed(extra[_RECORD], path)
    form = _form(record, path)
    with telling_what_is_missing(path):
        ops = tuple(op_of_record(each) for each in record["ops"])
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
        raise ModelFileError(f"{refused(path)}: it is a directory.")
    with open(path, "rb") as file:
        if not _is_package(file):
            return None
        check_whole(file, path)
    try:
        with quiet_torchao(), without_idle_output():
            runner = _inductor().aoti_load_package(str(path))
        metadata = runner.get_metadata()
    except Exception as error:
        raise ModelFileError(f"{refused(path)}: {first_line(error)}.") from error
    return runner, _form(_parsed(metadata.get(_RECORD, ""), path), path)


def _inductor() -> ModuleType:
    # The compiler takes seconds to import.
    import torch._inductor

    return torch._inductor


def _is_package(file: IO[bytes]) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/data/aotinductor/" in name for name in archive.namelist())
    except NO_ARCHIVE:
        return False


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
        raise ModelFileError(f"{refused(path)}: it has another origin.")
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError as error:  # Also if it is no text.
        raise ModelFileError(f"{refused(path)}: its record cannot be read. {CURE}") from error
    if not isinstance(record, dict):
        raise ModelFileError(f"{refused(path)}: its record is no dictionary. {CURE}")
    check_format(record.get("format"), FORMAT, path)
    return record


def _form(record: Mapping[str, Any], path: str | os.PathLike[str]) -> CallForm:
    """How the module is called; that a class is not registered is an error of its own."""
    with telling_what_is_missing(path):
        return form_from_json(record["call"])
