"""What a configuration costs, as a sum over its ops and the borders between them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from optuna_quant.config import QuantConfig


@dataclass(frozen=True)
class Boundary:
    """What it costs that a tensor changes its precision between the ops that make and read it.

    Args:
        producer:
            The op that makes the tensor.
        consumers:
            The ops that read it.
        quantize:
            What is paid, once, if the producer runs in floats and a consumer is quantized.
        dequantize:
            What is paid, once, if the producer is quantized and a consumer runs in floats.
    """

    producer: str
    consumers: tuple[str, ...]
    quantize: float = 0.0
    dequantize: float = 0.0

    def paid(self, is_quantized: Callable[[str], bool]) -> float:
        """What is paid here.

        Args:
            is_quantized:
                Says of an op whether it is quantized.
        """
        consumers = [is_quantized(op) for op in self.consumers]
        if is_quantized(self.producer):
            return 0.0 if all(consumers) else self.dequantize
        return self.quantize if any(consumers) else 0.0


@dataclass(frozen=True)
class CostTable:
    """The cost of every configuration in one measure, such as the seconds of a run.

    A configuration costs what is fixed, what each op costs in its option, and what is paid at the
    boundaries. That is what an integer program can choose by.

    Args:
        measure:
            What is measured, such as ``"latency"`` or ``"size"``.
        unit:
            In what: ``"s"``, ``"bytes"``, ``""`` for a count.
        ops:
            The cost of each op in each option, by the op's name and the option's label.
        boundaries:
            What is paid where precision changes between ops.
        fixed:
            What the rest of the model costs, whatever the configuration.

    Raises:
        ValueError:
            If a cost is not finite, or an op has no option.
    """

    measure: str
    unit: str
    ops: Mapping[str, Mapping[str, float]] = field(hash=False)
    boundaries: tuple[Boundary, ...] = ()
    fixed: float = 0.0

    def __post_init__(self) -> None:
        ops = {
            op: MappingProxyType({label: float(cost) for label, cost in options.items()})
            for op, options in self.ops.items()
        }
        object.__setattr__(self, "ops", MappingProxyType(ops))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        for op, options in ops.items():
            if not options:
                raise ValueError(f"The cost table {self.measure!r} has no option of op {op!r}.")
            for label, cost in options.items():
                if not math.isfinite(cost):
                    raise ValueError(
                        f"The cost table {self.measure!r} has the cost {cost} for op {op!r} as "
                        f"{label!r}; it must be a finite number."
                    )
        for value in (
            self.fixed,
            *(c for b in self.boundaries for c in (b.quantize, b.dequantize)),
        ):
            if not math.isfinite(value):
                raise ValueError(f"The cost table {self.measure!r} has the cost {value}.")

    def __reduce__(self) -> tuple[object, ...]:
        ops = {op: dict(options) for op, options in self.ops.items()}
        return type(self), (self.measure, self.unit, ops, self.boundaries, self.fixed)

    def option_cost(self, op: str, label: str) -> float:
        """What an op costs in an option; 0 for an op that the table does not know.

        Raises:
            ValueError:
                If the table knows the op, but not the option.
        """
        options = self.ops.get(op)
        if options is None:
            return 0.0
        if label not in options:
            raise ValueError(
                f"The cost table {self.measure!r} has no cost for op {op!r} as {label!r}; it has: "
                f"{', '.join(options)}."
            )
        return options[label]

    def cost(self, config: QuantConfig) -> float:
        """What a configuration costs.

        Raises:
            ValueError:
                If the table does not have an option of it.
        """
        total = self.fixed
        for op, option in config.ops.items():
            total += self.option_cost(op, option.label)

        def is_quantized(op: str) -> bool:
            found = config.ops.get(op)
            return found is not None and found.is_quantized

        return total + sum(boundary.paid(is_quantized) for boundary in self.boundaries)

    def within(self, ops: Collection[str], *, rest: str) -> CostTable:
        """The table for configurations that have some of the ops only.

        Args:
            ops:
                The ops that configurations still have.
            rest:
                The label of the option in which the others run; what they cost becomes part of
                what is fixed. An op without such an option adds nothing.
        """
        others = [options for op, options in self.ops.items() if op not in ops]
        return CostTable(
            self.measure,
            self.unit,
            {op: options for op, options in self.ops.items() if op in ops},
            self.boundaries,
            self.fixed + sum(options.get(rest, 0.0) for options in others),
        )

    def to_dict(self) -> dict[str, Any]:
        """The table in types that JSON has."""
        return {
            "measure": self.measure,
            "unit": self.unit,
            "fixed": self.fixed,
            "ops": {op: dict(options) for op, options in self.ops.items()},
            "boundaries": [
                {
                    "producer": b.producer,
                    "consumers": list(b.consumers),
                    "quantize": b.quantize,
                    "dequantize": b.dequantize,
                }
                for b in self.boundaries
            ],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> CostTable:
        """The table that :meth:`to_dict` has given.

        Raises:
            ValueError:
                If it has another shape; the message names what is wrong.
        """
        try:
            boundaries = tuple(
                Boundary(
                    b["producer"],
                    tuple(b["consumers"]),
                    float(b.get("quantize", 0.0)),
                    float(b.get("dequantize", 0.0)),
                )
                for b in stored.get("boundaries", ())
            )
            return cls(
                str(stored["measure"]),
                str(stored.get("unit", "")),
                stored["ops"],
                boundaries,
                float(stored.get("fixed", 0.0)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                "A cost table has the keys measure, unit, ops (a cost for each op and option), "
                f"boundaries and fixed, but here: {type(error).__name__}: {error}."
            ) from error


def combined(
    tables: Sequence[tuple[CostTable, float]], *, measure: str, unit: str = ""
) -> CostTable:
    """The weighted sum of several tables, as one table.

    Args:
        tables:
            The tables, each with its weight.
        measure:
            What the sum is called.
        unit:
            Its unit.
    """
    ops: dict[str, dict[str, float]] = {}
    boundaries: list[Boundary] = []
    fixed = 0.0
    for table, weight in tables:
        fixed += weight * table.fixed
        for op, options in table.ops.items():
            row = ops.setdefault(op, {})
            for label, cost in options.items():
                row[label] = row.get(label, 0.0) + weight * cost
        boundaries += [
            Boundary(b.producer, b.consumers, weight * b.quantize, weight * b.dequantize)
            for b in table.boundaries
        ]
    return CostTable(measure, unit, ops, tuple(boundaries), fixed)
