"""How the values of options are written, on the command line and in a configuration file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from optuna_quant._common.durations import EXAMPLES
from optuna_quant._common.durations import parse_duration


Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
"""What a file of TOML can hold, and none."""


def _same(text: str) -> Plain:
    return text


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a value is written.

    Args:
        what:
            What a value is, for messages.
        parse:
            Reads a text; raises :class:`ValueError` if it is none.
        types:
            What a file may hold besides a text.
        path:
            The path in a text, as ``(what stands before it, the path, what stands behind it)``;
            :obj:`None` if there is none.
        repeats:
            Whether the flag may be given several times, and the value is a list.
        parts:
            How many words follow the flag, if it is not one.
        example:
            A value as a configuration file says it, where it is no text.
    """

    what: str
    parse: Callable[[str], Plain] = _same
    types: tuple[type, ...] = ()
    path: Callable[[str], tuple[str, str, str] | None] = lambda text: None
    repeats: bool = False
    parts: int | None = None
    example: str | None = None

    def read(self, text: str) -> Plain:
        """The value of a text.

        Raises:
            ValueError:
                If it is none; the message says what is expected.
        """
        try:
            return self.parse(text)
        except ValueError as error:
            if str(error).startswith("it must"):
                raise
            raise ValueError(f"it must be {self.what}, but is {text!r}") from None

    def from_file(self, value: Plain, folder: str) -> Plain:
        """The value that a file holds; paths are relative to the folder of the file.

        Args:
            value:
                What the file holds.
            folder:
                The folder of the file.

        Raises:
            ValueError:
                If it is of another kind; the message says only what is expected.
        """
        if isinstance(value, list) and (self.repeats or list in self.types):
            if self.parts not in (None, len(value)):
                raise ValueError(f"it must be {self.what}, but is {value!r}")
            if self.parse is not _same:
                return [self.read(str(each)) for each in value]
            return [self._moved(each, folder) for each in value]
        if isinstance(value, dict) and dict in self.types:
            return {name: self._moved(each, folder) for name, each in value.items()}
        if isinstance(value, str) and bool not in self.types:
            parsed = self.read(value)
            return [self._moved(value, folder)] if self.repeats else self._moved(parsed, folder)
        wanted = isinstance(value, self.types) and not isinstance(value, list | dict)
        if not wanted or (isinstance(value, bool) and bool not in self.types):
            raise ValueError(f"it must be {self.what}, but is {value!r}")
        if bool not in self.types:
            self.read(str(value))
        return value

    def _moved(self, value: Plain, folder: str) -> Plain:
        found = self.path(value) if isinstance(value, str) else None
        if found is None:
            return value
        before, path, behind = found
        return f"{before}{Path(folder) / path}{behind}"


def _whole(text: str) -> tuple[str, str, str] | None:
    return "", text, ""


def _address(text: str) -> tuple[str, str, str] | None:
    return None if "://" in text else ("", text, "")


def _metric(text: str) -> tuple[str, str, str] | None:
    return ("", text, "") if ".py" in text else None


def _part_or_path(text: str) -> tuple[str, str, str] | None:
    return None if _is_number(text) else ("", text, "")


def _file_of(*suffixes: str) -> Callable[[str], tuple[str, str, str] | None]:
    def path(text: str) -> tuple[str, str, str] | None:
        return ("", text, "") if text.lower().endswith(suffixes) else None

    return path


def _behind_at(text: str) -> tuple[str, str, str] | None:
    return ("@", text[1:], "") if text.startswith("@") else None


def _study(text: str) -> tuple[str, str, str] | None:
    name, at, storage = text.partition("@")
    return (f"{name}@", storage, "") if at and storage and "://" not in storage else None


def _named_file(text: str) -> tuple[str, str, str] | None:
    name, at, path = text.partition("=@")
    return (f"{name}=@", path, "") if at else _behind_at(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"it must be at least 1, but is {value}")
    return value


def _count_or_none(text: str) -> int | None:
    return None if text == "none" else _count(text)


def _seconds(text: str) -> float | None:
    return None if text == "none" else parse_duration(text)


def _level(text: str) -> Plain:
    return int(text) if text in ("0", "1") else text


def _whole_number(text: str) -> Plain:
    return int(text)


def _number(text: str) -> Plain:
    return float(text)


TEXT = Kind(what="a string")
OUTPUT = Kind(what="a path", path=_whole)
FOLDER = Kind(what="a folder", path=_whole)
FILE = Kind(what="a file", path=_whole)
DATA = Kind(what="a file or a folder", path=_whole)
ADDRESS = Kind(what="a file or a URL", path=_address)
FUNCTION = Kind(what="FILE.py:NAME", path=_whole)
METRIC = Kind(what="a name or FILE.py:NAME", path=_metric)
HOLDOUT = Kind(what="a part or a file", types=(float,), path=_part_or_path, example="0.3")
TARGET = Kind(what="a name or a file", path=_file_of(".json", ".toml"))
TABLE = Kind(what="a table", types=(dict,), path=_behind_at, example="{}")
WEIGHTS = Kind(what="a string, or a table of weights", types=(dict,))
INPUTS = Kind(
    what="a table of inputs",
    types=(dict,),
    path=_named_file,
    repeats=True,
    example="{ NAME = 1.0 }",
)
STUDY = Kind(what="NAME, NAME@STORAGE or @STORAGE", path=_study)
NAMES = Kind(what="a string or a list of strings", repeats=True)
OP_TYPES = Kind(what="a string or a list of strings", types=(list,))
CHOICES = Kind(what="a string, a list of strings or a table", types=(list, dict), path=_behind_at)
COUNT = Kind(what="a whole number of at least 1", parse=_count, types=(int,), example="1")
COUNTS = Kind(what="a list of whole numbers", parse=_count, types=(int, list), example="[100]")
COUNT_OR_NONE = Kind(
    what="a whole number of at least 1, or 'none'", parse=_count_or_none, types=(int,)
)
INTEGER = Kind(what="a whole number", parse=_whole_number, types=(int,))
NUMBER = Kind(what="a number", parse=_number, types=(int, float))
SECONDS_OR_NONE = Kind(
    what=f"a duration such as {EXAMPLES}, a number of seconds, or 'none'",
    parse=_seconds,
    types=(int, float),
    example='"15m"',
)
BOUNDS = Kind(
    what="a list of two numbers", parse=_number, types=(list,), parts=2, example="[0.0, 1.0]"
)
LEVEL = Kind(what="'auto', 0 or 1", parse=_level, types=(int,))
SWITCH = Kind(what="true or false", types=(bool,))
