"""The costs of a model in several measures, how they were found, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import runtime_checkable

from optuna_quant.costs.table import CostTable


if TYPE_CHECKING:
    from optuna_quant.space import TuningSpace


_FORMAT = 1

TRUSTED_CORRELATION = 0.7
"""From which rank correlation on predicted costs decide what is tried."""


@dataclass(frozen=True)
class Validation:
    """How a table's predictions agree with measurements of whole models.

    Args:
        predicted:
            The predicted cost of each model.
        measured:
            The measured cost of each.
        noise:
            The spread of repeated measurements of one model, in the same unit.
        rank_correlation:
            Spearman's, between the two; :obj:`None` where the models differ by no more than the
            noise, so that there is nothing to rank.
    """

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    noise: float
    rank_correlation: float | None

    @property
    def predicts(self) -> bool:
        """Whether the table can be relied on."""
        return self.rank_correlation is None or self.rank_correlation >= TRUSTED_CORRELATION


@dataclass(frozen=True)
class Costs:
    """What a model costs, configuration by configuration.

    Args:
        tables:
            A table per measure: ``"latency"`` (seconds), ``"size"`` (bytes), ``"multiply_adds"``
            and ``"bit_operations"``. A measure that is not known is left out.
        conditions:
            Under which conditions they hold, for people: machine, threads, batch.
        validation:
            How the predicted latency agrees with whole models; :obj:`None` if nobody looked.
        seconds:
            How long it took to measure.
    """

    tables: Mapping[str, CostTable] = field(hash=False)
    conditions: Mapping[str, str] = field(default_factory=dict, hash=False)
    validation: Validation | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", MappingProxyType(dict(self.tables)))
        object.__setattr__(self, "conditions", MappingProxyType(dict(self.conditions)))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (
            dict(self.tables),
            dict(self.conditions),
            self.validation,
            self.seconds,
        )

    def table(self, measure: str) -> CostTable:
        """The table of a measure.

        Raises:
            ValueError:
                If there is none.
        """
        if measure not in self.tables:
            raise ValueError(
                f"What the measure {measure!r} costs is not known; known are: "
                f"{', '.join(self.tables) or 'none'}."
            )
        return self.tables[measure]

    def dumps(self) -> str:
        """The costs as JSON, for people to look at and edit."""
        stored: dict[str, Any] = {
            "format": _FORMAT,
            "conditions": dict(self.conditions),
            "seconds": self.seconds,
            "validation": None if self.validation is None else asdict(self.validation),
            "tables": [table.to_dict() for table in self.tables.values()],
        }
        return json.dumps(stored, indent=1)

    @classmethod
    def loads(cls, text: str) -> Costs:
        """The costs that :meth:`dumps` has written.

        Raises:
            ValueError:
                If it is no such text; the message says what is wrong.
        """
        try:
            stored = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"The costs are no JSON: {error}.") from error
        if not isinstance(stored, dict) or not isinstance(stored.get("tables"), list):
            raise ValueError("The costs must be a JSON object with the list 'tables'.")
        if stored.get("format", _FORMAT) != _FORMAT:
            raise ValueError(f"The costs have the format {stored['format']!r}, not {_FORMAT}.")
        tables = [CostTable.from_dict(each) for each in stored["tables"]]
        validation = stored.get("validation")
        if validation is not None:
            validation = Validation(
                tuple(validation["predicted"]),
                tuple(validation["measured"]),
                validation["noise"],
                validation["rank_correlation"],
            )
        return cls(
            {table.measure: table for table in tables},
            stored.get("conditions", {}),
            validation,
            float(stored.get("seconds", 0.0)),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the costs to a JSON file."""
        Path(path).write_text(self.dumps(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Costs:
        """Read the costs from a JSON file.

        Raises:
            ValueError:
                If it holds something else.
            OSError:
                If it cannot be read.
        """
        try:
            return cls.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


@runtime_checkable
class MeasuresCosts(Protocol):
    """What a backend adds to :class:`~optuna_quant.backends.base.Backend` to know costs."""

    def costs(self, space: TuningSpace) -> Costs:
        """What the configurations of a tuning space cost here; measured, so it takes a while.

        Args:
            space:
                The tuning space.
        """
        ...
