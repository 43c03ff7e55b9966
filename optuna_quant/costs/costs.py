"""The costs of a model in several measures, with their conditions and validation."""

from __future__ import annotations

from collections.abc import Iterable
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

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.costs.table import CostTable


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


_FORMAT = 1
_KEYS = ("format", "conditions", "seconds", "validation", "tables")

TRUSTED_CORRELATION = 0.7
"""From which rank correlation on predicted costs decide what is tried."""


@dataclass(frozen=True)
class Validation:
    """The agreement of a table's predictions with measurements of whole models.

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
            How the predicted latency agrees with whole models; :obj:`None` if it was not checked.
        seconds:
            How long it took to measure.
        is_given:
            Whether the user has given them, as for another device: then they say what is faster,
            and not the times that are measured here.
    """

    tables: Mapping[str, CostTable] = field(hash=False)
    conditions: Mapping[str, str] = field(default_factory=dict, hash=False)
    validation: Validation | None = None
    seconds: float = 0.0
    is_given: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", MappingProxyType(dict(self.tables)))
        object.__setattr__(self, "conditions", MappingProxyType(dict(self.conditions)))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (
            dict(self.tables),
            dict(self.conditions),
            self.validation,
            self.seconds,
            self.is_given,
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

    def check(self, space: TuningSpace, measures: Iterable[str] | None = None) -> None:
        """Check that every option of a tuning space has a cost.

        Args:
            space:
                The tuning space.
            measures:
                In which tables; None for all.

        Raises:
            ValueError:
                If there is no such table, or naming the first op or option that has no cost.
        """
        for measure in self.tables if measures is None else measures:
            self.table(measure).check(space)

    def dumps(self) -> str:
        """The costs as JSON, for people to look at and edit."""
        stored: dict[str, Any] = {
            "format": _FORMAT,
            "conditions": dict(self.conditions),
            "seconds": self.seconds,
            "validation": None if self.validation is None else asdict(self.validation),
            "tables": [table.to_dict() for table in self.tables.values()],
        }
        return json.dumps(stored, indent=1, allow_nan=False)

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
            raise ValueError(f"The costs are not JSON: {error}.") from error
        if not isinstance(stored, dict) or not isinstance(stored.get("tables"), list):
            raise ValueError("The costs must be a JSON object with the list 'tables'.")
        if stored.get("format", _FORMAT) != _FORMAT:
            raise ValueError(f"The costs have the format {stored['format']!r}, not {_FORMAT}.")
        unknown = [key for key in stored if key not in _KEYS]
        if unknown:
            raise ValueError(
                f"The costs have an unknown key {unknown[0]!r}.{did_you_mean(unknown[0], _KEYS)}"
            )
        tables: dict[str, CostTable] = {}
        for each in stored["tables"]:
            table = CostTable.from_dict(each)
            if table.measure in tables:
                raise ValueError(f"The costs have two tables of {table.measure!r}.")
            tables[table.measure] = table
        conditions = stored.get("conditions", {})
        if not isinstance(conditions, dict):
            raise ValueError(f"The conditions must be an object, but are {conditions!r}.")
        seconds = stored.get("seconds", 0.0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ValueError(f"The seconds must be a number, but are {seconds!r}.")
        return cls(
            tables,
            {key: str(value) for key, value in conditions.items()},
            _validation(stored.get("validation")),
            float(seconds),
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


def _validation(stored: Any) -> Validation | None:
    if stored is None:
        return None
    try:
        correlation = stored["rank_correlation"]
        return Validation(
            tuple(float(each) for each in stored["predicted"]),
            tuple(float(each) for each in stored["measured"]),
            float(stored["noise"]),
            None if correlation is None else float(correlation),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "The validation has the keys predicted, measured (lists of numbers), noise and "
            f"rank_correlation, or is null, but is {stored!r}."
        ) from error


@runtime_checkable
class MeasuresCosts(Protocol):
    """A backend that measures what ops cost."""

    def costs(self, space: TuningSpace) -> Costs:
        """What the configurations of a tuning space cost here; measured, so it takes a while.

        With all measures that are known, those of :meth:`CountsCosts.counted_costs` included. A
        backend that predicts no latency is searched for the smallest model by default.

        Args:
            space:
                The tuning space.
        """
        ...


@runtime_checkable
class CountsCosts(Protocol):
    """A backend that counts costs which need no measurement, so that they are known at once."""

    def counted_costs(self, space: TuningSpace) -> Costs:
        """The size, the operations, or what else is known of the configurations of a space.

        With a table of sizes, a backend that measures no costs is searched for the smallest model
        by default. Without one a search for the smallest model only counts ops in fallback, so it
        sees no difference between options of 8 and of 4 bits.

        Args:
            space:
                The tuning space.
        """
        ...


@runtime_checkable
class HasCostConditions(Protocol):
    """A backend that tells under which conditions its costs hold.

    Costs that an earlier study has measured under the same ones are taken over.
    """

    def cost_conditions(self) -> Mapping[str, str]:
        """The :attr:`~Costs.conditions` that :meth:`MeasuresCosts.costs` would give here."""
        ...
