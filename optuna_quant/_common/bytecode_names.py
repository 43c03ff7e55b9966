"""The names that code uses, and those that it changes, read from its bytecode."""

from __future__ import annotations

from collections.abc import Iterator
import dis
import functools
from types import CodeType
from types import FunctionType


# What changes a container in place.
_CHANGES = frozenset(
    ("append", "appendleft", "add", "clear", "discard", "extend", "insert", "pop", "remove")
) | frozenset(("popitem", "setdefault", "update", "increment", "sort", "reverse", "put"))


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)


# Reading bytecode takes long, and equal code has equal names.
@functools.lru_cache(maxsize=4096)
def global_names(code: CodeType) -> frozenset[str]:
    """The globals that code reads."""
    return frozenset(
        str(one.argval)
        for one in _instructions(code)
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    )


@functools.lru_cache(maxsize=4096)
def changed_names(code: CodeType) -> frozenset[str]:
    """The globals, closed-over names and attributes that code assigns to or changes in place."""
    changed = set()
    last = ""
    for one in _instructions(code):
        if one.opname in ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR", "DELETE_GLOBAL"):
            changed.add(str(one.argval))
        elif one.opname in ("LOAD_METHOD", "LOAD_ATTR") and str(one.argval) in _CHANGES:
            changed.add(last)
        if one.opname.startswith("LOAD_") and isinstance(one.argval, str):
            last = one.argval
    return frozenset(changed)


@functools.lru_cache(maxsize=4096)
def filled_names(code: CodeType) -> frozenset[str]:
    """The names of containers to whose items code assigns."""
    found = list(dis.get_instructions(code))
    filled = set()
    for position, one in enumerate(found):
        if one.opname not in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            continue
        if position > 2 and found[position - 1].opname == "SWAP":  # As of "+=".
            while position > 2 and found[position].opname != "COPY":
                position -= 1
            position -= 1  # Both are copied, the container and the index.
        # Back over what has put the index on the stack; before it stands the container.
        height = 0
        while height < 1 and position > 0:
            position -= 1
            height += dis.stack_effect(found[position].opcode, found[position].arg, jump=False)
        container = found[position - 1]
        if container.opname.startswith("LOAD_") and isinstance(container.argval, str):
            filled.add(container.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            filled |= filled_names(constant)
    return frozenset(filled)


def changed_attributes(kind: type) -> tuple[set[str], set[str]]:
    """The attributes that an object changes after it was made, and those that it may fill."""
    changed: set[str] = set()
    filled: set[str] = set()
    for base in kind.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, FunctionType) and name not in ("__init__", "__post_init__"):
                changed |= changed_names(member.__code__)
                filled |= filled_names(member.__code__)
    return changed, filled
