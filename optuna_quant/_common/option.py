"""Options that are declared once: Python, the command and configuration files share them.

An option is a field of a frozen dataclass. What the command and a file need to know of it stands
beside the field, as a :class:`Flag`.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from dataclasses import dataclass
from typing import TypeVar
from typing import cast

from optuna_quant._common.nearest import nearest
from optuna_quant._common.option_kinds import Kind


T = TypeVar("T")

_FLAG = "flag"
_GROUP = "group"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """How the command says an option; a configuration file says it by its name.

    Args:
        help:
            What ``--help`` says.
        kind:
            How a value is written.
        names:
            The flags. Default: the option's name, as ``--batch-size`` for ``batch_size``.
        metavar:
            What stands for the value in ``--help``.
        choices:
            The strings that are allowed; empty for any.
        value:
            What the flag means, if it takes no value.
        opposite:
            A flag that means the opposite of such a value; empty if the command has none.
        heading:
            Under which heading of ``--help`` it stands.
        reads:
            What the file is called that it names, for messages; :obj:`None` if it names none that
            is only read.
        common:
            Whether it is among the options that users need most, which ``--help`` shows.
    """

    help: str
    kind: Kind
    names: tuple[str, ...] = ()
    metavar: str | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    value: bool | None = None
    opposite: str = ""
    heading: str = "search"
    reads: str | None = None
    common: bool = False


@dataclass(frozen=True)
class Option:
    """An option as it was declared.

    Args:
        name:
            Its name.
        group:
            The name of the argument that takes the value it belongs to; :obj:`None` if it
            is an argument of its own.
        flag:
            How the command says it; :obj:`None` if only Python can.
        type:
            Its type, as source.
        default:
            Its default.
    """

    name: str
    group: str | None
    flag: Flag | None
    type: str
    default: object = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the command."""
        if self.flag is None:
            return ()
        return self.flag.names or (f"--{self.name.replace('_', '-')}",)


def option(default: T, flag: Flag | None = None) -> T:
    """Declare a field of a dataclass as an option.

    Args:
        default:
            Its default.
        flag:
            How the command says it; :obj:`None` if only Python can.
    """
    return dataclasses.field(default=default, metadata={_FLAG: flag})


def group(kind: type[T]) -> T:
    """Declare a field of a dataclass whose value holds options of its own.

    Args:
        kind:
            The class of the value, which can be made without options.
    """
    return dataclasses.field(default_factory=kind, metadata={_GROUP: kind})


def group_or_none(kind: type[T]) -> T | None:
    """As :func:`group`, where :obj:`None` says that none of the options was given.

    Args:
        kind:
            The class of the value.
    """
    return cast("T | None", dataclasses.field(default=None, metadata={_GROUP: kind}))


def groups_of(cls: type) -> dict[str, type]:
    """The fields of a class whose values hold options, with the classes of those values."""
    return {
        field.name: field.metadata[_GROUP]
        for field in dataclasses.fields(cls)
        if _GROUP in field.metadata
    }


def options_of(cls: type) -> dict[str, Option]:
    """All options of a class by name, those of its groups included."""
    return {found.name: found for found in _options(cls, None)}


def meant_by(name: str, cls: type) -> str | None:
    """The name of an option or a group that was meant by one that does not exist.

    A flag without its dashes stands for its option.

    Args:
        name:
            What was given.
        cls:
            The class that declares the options.
    """
    options = options_of(cls)
    for option in options.values():
        if name in (flag.removeprefix("--").replace("-", "_") for flag in option.flags):
            return option.name
    return nearest(name, [*options, *groups_of(cls)])


def _options(cls: type, name: str | None) -> Iterator[Option]:
    for field in dataclasses.fields(cls):
        kind = field.metadata.get(_GROUP)
        if kind is None:
            yield Option(
                field.name, name, field.metadata.get(_FLAG), str(field.type), field.default
            )
        else:
            yield from _options(kind, field.name)
