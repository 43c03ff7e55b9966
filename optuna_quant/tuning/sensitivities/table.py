"""A table of sensitivities, and the file that it is kept in."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from importlib import import_module
import json
import math
from numbers import Real
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.base import atomic_write


if TYPE_CHECKING:
    import pandas as pd


VERSION = 1
"""Changed whenever a file would be misunderstood by earlier versions of this package."""

_FIELDS = ("version", "model", "kind", "scores")
_ROW_FIELDS = ("op", "op_type", "option", "score", "enabled")


@dataclass(frozen=True)
class OptionSensitivity:
    """A row of the table.

    Args:
        op:
            The name of the op.
        op_type:
            Its type; for readers only.
        option:
            The label of the option; :obj:`None` for all options of the op.
        score:
            How much the model suffers from the op in this option; what that is in depends on the
            kind. :obj:`None` if it is not scored.
        enabled:
            Whether a search may use the option.

    Raises:
        ValueError:
            If a value is of another type, the score is not finite, or a row for all options has a
            score.
    """

    op: str
    op_type: str = ""
    option: str | None = None
    score: float | None = None
    enabled: bool = True

    def __post_init__(self) -> None:
        texts = {"op": self.op, "op_type": self.op_type, "option": self.option or ""}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise ValueError(f"op {self.op!r}: {name} must be a string, but is {value!r}.")
        if not isinstance(self.enabled, bool):
            raise ValueError(
                f"op {self.op!r}: enabled must be true or false, but is {self.enabled!r}."
            )
        if self.score is None:
            return
        number = isinstance(self.score, Real) and not isinstance(self.score, bool)
        if not number or not math.isfinite(self.score):
            raise ValueError(
                f"op {self.op!r}: the score must be a finite number, but is {self.score!r}."
            )
        if self.option is None:
            raise ValueError(
                f"op {self.op!r}: a row without an option is for all options of the op and has "
                "no score."
            )


@dataclass(frozen=True)
class SensitivityTable:
    """How sensitive a model is to the quantization of each op in each option.

    :func:`optuna_quant.sensitivity` makes one. ``tune(sensitivities=)`` takes it, or the path of
    its file.

    Args:
        model:
            What tells the model from others.
        kind:
            What the scores mean, one of :class:`~optuna_quant.backends.base.SensitivityKind`;
            :obj:`None` if there are none.
        rows:
            The rows.

    Raises:
        ValueError:
            If the kind is not known, an option of an op comes twice, or there are scores without
            a kind.
    """

    model: str
    kind: SensitivityKind | None
    rows: tuple[OptionSensitivity, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        if self.kind is not None:
            object.__setattr__(self, "kind", as_kind(self.kind))
        seen = set()
        for row in self.rows:
            if (row.op, row.option) in seen:
                what = "without an option" if row.option is None else f"in option {row.option!r}"
                raise ValueError(f"op {row.op!r} {what} comes twice.")
            seen.add((row.op, row.option))
            if row.score is not None and self.kind is None:
                raise ValueError(f"op {row.op!r} has a score, but the file names no kind.")

    @cached_property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """The scores by op and the label of its option."""
        found: dict[str, dict[str, float]] = {}
        for row in self.rows:
            if row.option is not None and row.score is not None:
                found.setdefault(row.op, {})[row.option] = float(row.score)
        return found

    @cached_property
    def disabled(self) -> tuple[OptionSensitivity, ...]:
        """The rows that are not enabled."""
        return tuple(row for row in self.rows if not row.enabled)

    def is_enabled(self, op: str, option: str) -> bool:
        """Whether a search may use an option of an op; what has no row may be used.

        Args:
            op:
                The op.
            option:
                The label of the option. A row for all options does not mean those in floats.
        """
        row = self._by_option.get((op, option))
        return row is None or row.enabled

    def disables(self, op: str) -> bool:
        """Whether a row for all options of an op disables them."""
        row = self._by_option.get((op, None))
        return row is not None and not row.enabled

    def without(self, *ops: str) -> SensitivityTable:
        """The table with all options of some ops disabled, so that a search leaves them in FP32.

        Args:
            *ops:
                The names of the ops.

        Raises:
            ValueError:
                If one has no row.
        """
        known = {row.op for row in self.rows}
        for op in ops:
            if op not in known:
                raise ValueError(f"The table has no op {op!r}.{did_you_mean(op, known)}")
        rows = [replace(row, enabled=row.enabled and row.op not in ops) for row in self.rows]
        return replace(self, rows=tuple(rows))

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame, with the columns ``op``, ``op_type``, ``option``, ``score``
        and ``enabled``: a row for each row.
        """
        import pandas as pd

        return pd.DataFrame(
            [[getattr(row, name) for name in _ROW_FIELDS] for row in self.rows],
            columns=list(_ROW_FIELDS),
        )

    def __str__(self) -> str:
        """The ops with their scores, the most sensitive first."""
        # What shows a table lies above it.
        return str(import_module("optuna_quant.tuning.sensitivities.output").shown(self))

    def to_json(self) -> str:
        """The text of the file: a line for each row."""
        head = {"version": VERSION, "model": self.model, "kind": self.kind}
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
        rows = [f"    {json.dumps(_written(row), allow_nan=False)}" for row in self.rows]
        listed = ",\n".join(rows)
        return "\n".join(["{", *lines, '  "scores": [', listed, "  ]", "}"]) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, which is replaced as a whole.

        Args:
            path:
                The file.
        """
        atomic_write(path, self.to_json().encode())

    @classmethod
    def from_json(cls, text: str) -> SensitivityTable:
        """Read what :meth:`to_json` gives.

        Raises:
            ValueError:
                If it is something else.
        """
        stored = json.loads(text)
        if not isinstance(stored, dict):
            raise ValueError("it is not a table of sensitivities, but another JSON value.")
        _check_fields(stored, _FIELDS, ("version", "model", "scores"), "the file")
        if stored["version"] != VERSION:
            raise ValueError(
                f"it has version {stored['version']!r}, but this version of optuna_quant reads "
                f"{VERSION}."
            )
        if not isinstance(stored["model"], str) or not isinstance(stored["scores"], list):
            raise ValueError("'model' must be a string, and 'scores' a list.")
        rows = [_read(row, number) for number, row in enumerate(stored["scores"], start=1)]
        return cls(stored["model"], stored.get("kind"), tuple(rows))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SensitivityTable:
        """Read a file.

        Args:
            path:
                The file.

        Raises:
            ValueError:
                If it cannot be read, or holds something else; the message names it.
        """
        file = Path(path)
        try:
            return cls.from_json(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise ValueError(f"{str(file)!r} cannot be read: it is not a text file.") from None
        except OSError as error:
            raise ValueError(f"{str(file)!r} cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise ValueError(f"{str(file)!r}: {error}") from None

    @cached_property
    def _by_option(self) -> Mapping[tuple[str, str | None], OptionSensitivity]:
        return {(row.op, row.option): row for row in self.rows}


SensitivitiesLike: TypeAlias = SensitivityTable | str | os.PathLike[str]
"""A table, or the path of its file."""


def as_table(given: SensitivitiesLike) -> SensitivityTable:
    """The table that a user gives.

    Raises:
        TypeError:
            If it is neither a table nor a path.
        ValueError:
            If the file cannot be read, or holds something else.
    """
    if isinstance(given, SensitivityTable):
        return given
    if not isinstance(given, str | os.PathLike):
        raise TypeError(
            "sensitivities must be a SensitivityTable, or the path of a file that optuna-quant "
            f"sensitivity has written, but got {given!r}."
        )
    try:
        return SensitivityTable.load(given)
    except ValueError as error:
        raise ValueError(f"sensitivities: {error}") from None


def as_kind(kind: object) -> SensitivityKind:
    """The kind of a name.

    Raises:
        ValueError:
            If there is no such kind.
    """
    names = [each.value for each in SensitivityKind]
    if kind not in names:
        raise ValueError(
            f"kind must be one of {', '.join(map(repr, names))}, but is {kind!r}."
            f"{did_you_mean(str(kind), names)}"
        )
    return SensitivityKind(str(kind))


def _written(row: OptionSensitivity) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in _ROW_FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


def _read(row: object, number: int) -> OptionSensitivity:
    where = f"row {number} of 'scores'"
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object, but is {row!r}.")
    _check_fields(row, _ROW_FIELDS, ("op",), where)
    try:
        return OptionSensitivity(**row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_fields(
    given: Iterable[str], known: Sequence[str], needed: Sequence[str], where: str
) -> None:
    names = list(given)
    for name in names:
        if name not in known:
            raise ValueError(
                f"{where} has no field {name!r}.{did_you_mean(name, known)} The fields are "
                f"{', '.join(known)}."
            )
    for name in needed:
        if name not in names:
            raise ValueError(f"{where} lacks the field {name!r}.")
