"""Hash a user's function: its code, and everything that it visibly uses."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import enum
import functools
import hashlib
import inspect
import os
from pathlib import Path
import sys
import sysconfig
from types import BuiltinFunctionType
from types import CodeType
from types import FunctionType
from types import MethodType
from types import ModuleType
from typing import Any

import numpy as np

from optuna_quant._common.bytecode_names import changed_attributes
from optuna_quant._common.bytecode_names import changed_names
from optuna_quant._common.bytecode_names import filled_names
from optuna_quant._common.bytecode_names import global_names


# Files that are data; others (a log, say) may be written by the function itself.
_DATA_FILES = frozenset(
    (".npz", ".npy", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".xml", ".yaml", ".yml")
) | frozenset(
    (".parquet", ".feather", ".h5", ".hdf5", ".pkl", ".pickle", ".pt", ".pth", ".safetensors")
)
# Larger contents are read in parts: so many bytes in all, in so many places.
_READ_BYTES = 1 << 26
_PLACES = 256
_MOST_ITEMS = 10_000
_DEEPEST = 12
_LONGEST_SHOWN = 10_000
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def code_digest(function: object) -> str | None:
    """Tell a function from an edited one.

    The hash covers the bytecode (not comments, docstrings or line numbers), defaults, what is
    closed over, the globals and attributes that are used if they are plain values, arrays,
    functions or objects of the user's own, the bytes of the user's modules that it comes from or
    uses, and of data files that its constants name. What the function itself changes, such as a
    counter, is left out, and so is the inside of installed packages. It cannot see everything:
    a function with the same hash may still read other data.

    Args:
        function:
            A function, a method, a partial, or an object that can be called.

    Returns:
        The hash; :obj:`None` if there is no code to be seen, as of a function written in C.
    """
    if isinstance(function, BuiltinFunctionType):
        return None
    walk = _Walk()
    try:
        walk.add(function, 0)
    except Exception:  # Objects of others, which may refuse to be looked at in any way.
        return None
    return walk.hexdigest()


def array_digest(array: np.ndarray[Any, Any]) -> str:
    """A content hash of an array; of one that is larger than 64 MB, of parts all over it."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape};".encode())
    if array.dtype.hasobject:
        flat = array.reshape(-1)
        places = _spread(len(flat), _MOST_ITEMS)
        digest.update("\0".join(_shown(flat[place]) for place in places).encode())
    elif array.nbytes <= _READ_BYTES or not array.ndim:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    else:
        rows = max(1, _READ_BYTES // _PLACES * len(array) // array.nbytes)
        for place in _spread(len(array), _PLACES):
            digest.update(np.ascontiguousarray(array[place : place + rows]).tobytes())
    return digest.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """A content hash of a file; of one that is larger than 64 MB, of parts all over it."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(f"{size};".encode())
    with Path(path).open("rb") as file:
        if size <= _READ_BYTES:
            digest.update(file.read())
        else:
            for place in _spread(size, _PLACES):
                file.seek(place)
                digest.update(file.read(_READ_BYTES // _PLACES))
    return digest.hexdigest()


def _spread(count: int, places: int) -> Iterable[int]:
    """Up to so many places from the first to the last of ``count``."""
    if count <= places:
        return range(count)
    return sorted({place * (count - 1) // (places - 1) for place in range(places)})


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return array_digest(value)
    return repr(value) if isinstance(value, _PLAIN) else _name_of(type(value))


def _name_of(value: Any) -> str:
    module = getattr(value, "__module__", None)
    return f"{module}.{getattr(value, '__qualname__', getattr(value, '__name__', '?'))}"


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders.append(str(Path(__file__).parent))
    return tuple({os.path.realpath(folder) + os.sep for folder in folders})


# Each function of a module asks, and to resolve the links of its path takes long.
@functools.lru_cache(maxsize=4096)
def _is_installed(file: str | None) -> bool:
    """Whether a module is of a package or of Python, rather than the user's own."""
    if file is None:
        return True
    real = os.path.realpath(file)
    return real.startswith(_library_folders()) or f"{os.sep}site-packages{os.sep}" in real


def _file_of_globals(names: Mapping[str, Any]) -> str | None:
    file = names.get("__file__")
    return file if isinstance(file, str) else None


class _Walk:
    """Adds objects to a hash, and what each of them refers to."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._seen: set[int] = set()
        self._seen_files: set[str] = set()
        self._kept: list[object] = []  # So that no identity is used twice.

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _note(self, *texts: object) -> None:
        for text in texts:
            data = text if isinstance(text, bytes) else str(text).encode()
            self._digest.update(f"{len(data)}:".encode() + data)

    def add(self, value: Any, depth: int, folder: str | None = None) -> None:
        """Add a value of whatever kind."""
        if isinstance(value, np.generic):
            self._note("scalar", value.dtype.str, value.tobytes())
        elif isinstance(value, _PLAIN) or value is Ellipsis:
            self._note(type(value).__name__, value if isinstance(value, bytes) else repr(value))
            if isinstance(value, str):
                self._add_file(value, folder)
        elif isinstance(value, os.PathLike):
            self._note("path", os.fspath(value))
            self._add_file(os.fspath(value), folder)
        elif depth > _DEEPEST:
            self._note("deep", _name_of(type(value)))
        elif isinstance(value, tuple | frozenset):  # Which of them are one object is chance.
            self._add_object(value, depth, folder)
        elif id(value) in self._seen:
            self._note("again", _name_of(type(value)))
        else:
            self._seen.add(id(value))
            self._kept.append(value)
            self._add_object(value, depth, folder)

    def _add_file(self, text: str, folder: str | None) -> None:
        """Add a data file that a text names, from here or from beside the code."""
        if os.path.splitext(text)[1].lower() not in _DATA_FILES or len(text) > 1000:
            return
        for base in dict.fromkeys(("", folder or "")):
            path = os.path.join(base, text)
            try:
                if os.path.isfile(path):
                    self._note("file", file_digest(path))
                    return
            except (OSError, ValueError):  # A text that is no name of a file.
                return

    def _add_object(self, value: Any, depth: int, folder: str | None) -> None:
        if isinstance(value, functools.partial):
            self._note("partial")
            for part in (value.func, value.args, value.keywords):
                self.add(part, depth + 1, folder)
        elif isinstance(value, MethodType):
            self._note("method")
            self.add(value.__func__, depth + 1, folder)
            self.add(value.__self__, depth + 1, folder)
        elif isinstance(value, FunctionType):
            self._add_function(value, depth)
        elif isinstance(value, CodeType):
            self._add_code(value, depth, folder)
        elif isinstance(value, ModuleType):
            self._add_module(value)
        elif isinstance(value, type):
            self._add_class(value, depth)
        elif isinstance(value, np.ndarray):
            self._note("array", array_digest(value))
        elif isinstance(value, enum.Enum):
            self._note("enum", _name_of(type(value)), value.name)
        elif isinstance(value, Mapping):
            self._note("mapping", len(value))
            for key in list(value)[:_MOST_ITEMS]:
                self.add(key, depth + 1, folder)
                self.add(value[key], depth + 1, folder)
        elif isinstance(value, tuple | list):
            self._note("sequence", len(value))
            for item in value[:_MOST_ITEMS]:
                self.add(item, depth + 1, folder)
        elif isinstance(value, set | frozenset):
            self._note("set", *sorted(map(_shown, value)))
        else:
            self._add_instance(value, depth, folder)

    def _add_function(self, function: FunctionType, depth: int) -> None:
        wrapped = inspect.unwrap(function)
        if wrapped is not function:
            self.add(wrapped, depth + 1)
        file = _file_of_globals(function.__globals__)
        if _is_installed(file) and function.__globals__.get("__name__") != "__main__":
            self._note("installed function", _name_of(function))
            if function.__closure__:
                self._add_closure(function, frozenset(), depth, None)
            return
        self._note("function")
        folder = None if file is None else os.path.dirname(os.path.abspath(file))
        if file is not None and function.__globals__.get("__name__") != "__main__":
            self._add_source(file)
        code = function.__code__
        changed = changed_names(code)
        self._add_code(code, depth, folder, docstring=function.__doc__)
        self.add(function.__defaults__, depth + 1, folder)
        self.add(function.__kwdefaults__, depth + 1, folder)
        self._add_closure(function, changed, depth, folder)
        known = function.__globals__
        filled = filled_names(code)
        for name in sorted(global_names(code) & known.keys()):
            if name not in changed and not (name in filled and _is_container(known[name])):
                self._note("global", name)
                self.add(known[name], depth + 1, folder)

    def _add_closure(
        self, function: FunctionType, changed: frozenset[str], depth: int, folder: str | None
    ) -> None:
        filled = filled_names(function.__code__)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if name in changed:
                continue
            try:
                content = cell.cell_contents
            except ValueError:  # Not set yet.
                continue
            if not (name in filled and _is_container(content)):
                self._note("closure", name)
                self.add(content, depth + 1, folder)

    def _add_code(
        self, code: CodeType, depth: int, folder: str | None, docstring: str | None = None
    ) -> None:
        self._note("code", code.co_code, *code.co_names, *code.co_varnames)
        constants = code.co_consts
        if docstring is not None and constants[:1] == (docstring,):
            constants = constants[1:]
        for constant in constants:
            if isinstance(constant, CodeType):
                inner = constant.co_consts[:1]
                text = inner[0] if inner and isinstance(inner[0], str) else None
                is_class_or_function = not constant.co_name.startswith("<")
                self._add_code(constant, depth + 1, folder, text if is_class_or_function else None)
            else:
                self.add(constant, depth + 1, folder)

    def _add_module(self, module: ModuleType) -> None:
        self._note("module", module.__name__)
        file = getattr(module, "__file__", None)
        if not _is_installed(file):
            self._add_source(str(file))

    def _add_source(self, file: str) -> None:
        """Add a module of the user's own, once."""
        if file not in self._seen_files:
            self._seen_files.add(file)
            try:
                self._note("source", file_digest(file))
            except OSError:  # As in an archive.
                self._note("no source")

    def _add_class(self, kind: type, depth: int) -> None:
        self._note("class", _name_of(kind))
        for base in kind.__mro__:
            if not _is_own_class(base):
                self._note("installed class", _name_of(base))
                continue
            module = sys.modules.get(base.__module__)
            file = getattr(module, "__file__", None)
            if file is not None and base.__module__ != "__main__":
                self._add_source(file)
            for name, member in sorted(vars(base).items()):
                member = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if isinstance(member, (FunctionType, np.ndarray, *_PLAIN)) and name not in (
                    "__doc__", "__module__", "__qualname__", "__firstlineno__"
                ):  # fmt: skip
                    self._note("member", name)
                    self.add(member, depth + 1)

    def _add_instance(self, value: Any, depth: int, folder: str | None) -> None:
        """Add an object: its class and, if that is the user's own, what it holds."""
        kind = type(value)
        self.add(kind, depth + 1)
        if not _is_own_class(kind):
            if isinstance(getattr(value, "__qualname__", None), str):  # A function of C code.
                self._note(_name_of(value))
            shown = repr(value)
            if " at 0x" not in shown and len(shown) < _LONGEST_SHOWN:
                self._note(shown)
            shape = getattr(value, "shape", None)
            if isinstance(shape, tuple):
                self._note("shape", tuple(shape))
            held = _array_of(value)
            if held is not None:
                self.add(held, depth + 1)
            return
        changed, filled = changed_attributes(kind)
        for name, held in sorted(getattr(value, "__dict__", {}).items()):
            if name not in changed and not (name in filled and _is_container(held)):
                self._note("attribute", name)
                self.add(held, depth + 1, folder)


def _array_of(value: Any) -> Any:
    """The content of a tensor or a frame, if it is where it can be seen at once."""
    detach = getattr(value, "detach", None)
    try:
        if callable(detach):
            return np.asarray(detach().cpu())
        to_numpy = getattr(value, "to_numpy", None)
        return np.asarray(to_numpy()) if callable(to_numpy) else None
    except Exception:  # Each library fails in its own way, and the type has been noted.
        return None


def _is_own_class(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    if module is None or kind.__module__ == "__main__":
        return kind.__module__ not in ("builtins",)
    return not _is_installed(getattr(module, "__file__", None))


def _is_container(value: object) -> bool:
    return isinstance(value, list | dict | set)
