"""The cost of a configuration, as a sum over its ops and the boundaries between them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import math
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.nearest import did_you_mean


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class Boundary:
    """The cost of changing a tensor's precision between the ops that write and read it.

    An op that a configuration does not name runs in floats, so a boundary whose producer is none
    (``""``) is paid once if any consumer is quantized. Costs are not negative, but for one of the
    size, which is paid if anything at all is quantized: the original file may be larger than what
    is rebuilt of it.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "consumers", tuple(dict.fromkeys(self.consumers)))
        # JSON has no numbers of NumPy's.
        object.__setattr__(self, "quantize", float(self.quantize))
        object.__setattr__(self, "dequantize", float(self.dequantize))

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
        recipes:
            What a value of a recipe adds if anything is quantized, by the recipe's name and the
            value; nothing if it is not named.

    Raises:
        ValueError:
            If a cost is not finite, or an op has no option.
    """

    measure: str
    unit: str
    ops: Mapping[str, Mapping[str, float]] = field(hash=False)
    boundaries: tuple[Boundary, ...] = ()
    fixed: float = 0.0
    recipes: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        ops = {
            op: MappingProxyType({label: float(cost) for label, cost in options.items()})
            for op, options in self.ops.items()
        }
        object.__setattr__(self, "ops", MappingProxyType(ops))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        object.__setattr__(self, "fixed", float(self.fixed))
        recipes = {
            name: MappingProxyType({value: float(cost) for value, cost in values.items()})
            for name, values in self.recipes.items()
        }
        object.__setattr__(self, "recipes", MappingProxyType(recipes))
        for op, options in ops.items():
            if not options:
                raise ValueError(f"The cost table {self.measure!r} has no option of op {op!r}.")
            for label, cost in options.items():
                if not math.isfinite(cost):
                    raise ValueError(
                        f"The cost table {self.measure!r} has the cost {cost} for op {op!r} as "
                        f"{label!r}; it must be a finite number."
                    )
        elsewhere = [("what is fixed", self.fixed)]
        for b in self.boundaries:
            where = f"the boundary between {b.producer!r} and {', '.join(map(repr, b.consumers))}"
            elsewhere += [(where, b.quantize), (where, b.dequantize)]
        elsewhere += [
            (f"the recipe {name}={value}", cost)
            for name, values in recipes.items()
            for value, cost in values.items()
        ]
        for where, value in elsewhere:
            if not math.isfinite(value):
                raise ValueError(
                    f"The cost table {self.measure!r} has the cost {value} for {where}; it must "
                    "be a finite number."
                )

    def __reduce__(self) -> tuple[object, ...]:
        ops = {op: dict(options) for op, options in self.ops.items()}
        recipes = {name: dict(values) for name, values in self.recipes.items()}
        return type(self), (self.measure, self.unit, ops, self.boundaries, self.fixed, recipes)

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

        quantized = frozenset(config.quantized_ops)
        if self.recipes and quantized:
            total += self.recipes_cost(config.recipes)
        return total + sum(boundary.paid(quantized.__contains__) for boundary in self.boundaries)

    def recipes_cost(self, recipes: Mapping[str, object]) -> float:
        """What the values of recipes add if anything is quantized.

        Args:
            recipes:
                The value of each recipe, by its name.
        """
        return sum(self.recipes.get(n, {}).get(str(value), 0.0) for n, value in recipes.items())

    def with_recipes(self, recipes: Mapping[str, object]) -> CostTable:
        """The table for configurations that all have the same recipes.

        What these add is a boundary in it, which is paid if anything is quantized.

        Args:
            recipes:
                The value of each recipe, by its name.
        """
        if not self.recipes:
            return self
        added = self.recipes_cost(recipes)
        more = (Boundary("", tuple(self.ops), quantize=added),) if added else ()
        return replace(self, boundaries=(*self.boundaries, *more), recipes={})

    def check(self, space: TuningSpace) -> None:
        """Check that every option of a tuning space has a cost.

        Args:
            space:
                The tuning space.

        Raises:
            ValueError:
                Naming the first op or option that has none.
        """
        for tunable in space.tunables:
            for op in tunable.ops:
                if op not in self.ops:
                    others = [name for name in self.ops if name not in _names(space)]
                    raise ValueError(
                        f"The cost table {self.measure!r} has no cost for op {op!r} of the tuning "
                        f"space.{did_you_mean(op, others)} It has those of {len(self.ops)} ops."
                    )
                known = self.ops[op]
                for option in tunable.options:
                    if option.label not in known:
                        raise ValueError(
                            f"The cost table {self.measure!r} has no cost for op {op!r} as "
                            f"{option.label!r}.{did_you_mean(option.label, known)} It has: "
                            f"{', '.join(known)}."
                        )

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
            self.recipes,
        )

    def to_dict(self) -> dict[str, Any]:
        """The table in types that JSON has."""
        recipes = {name: dict(values) for name, values in self.recipes.items()}
        return {
            "measure": self.measure,
            "unit": self.unit,
            "fixed": self.fixed,
            **({"recipes": recipes} if recipes else {}),
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
        known = ("measure", "unit", "fixed", "ops", "boundaries", "recipes")
        table = _object(stored, "A cost table", known, needed=("measure", "ops"))
        measure = table["measure"]
        if not isinstance(measure, str):
            raise ValueError(f"The measure of a cost table must be text, but is {measure!r}.")
        where = f"The cost table {measure!r}"
        ops = {
            op: {
                label: _number(cost, f"{where}, op {op!r} as {label!r}")
                for label, cost in _object(options, f"{where}, op {op!r},").items()
            }
            for op, options in _object(table["ops"], f"{where}, ops,").items()
        }
        given = table.get("boundaries", [])
        if not isinstance(given, list):
            raise ValueError(f"{where}: boundaries must be a list, but is {given!r}.")
        boundaries = [_boundary(each, f"{where}, boundary {i},") for i, each in enumerate(given)]
        unit = table.get("unit", "")
        fixed = _number(table.get("fixed", 0.0), f"{where}, fixed")
        recipes = {
            name: {
                value: _number(cost, f"{where}, recipe {name}={value}")
                for value, cost in _object(values, f"{where}, recipe {name!r},").items()
            }
            for name, values in _object(table.get("recipes", {}), f"{where}, recipes,").items()
        }
        return cls(measure, str(unit), ops, tuple(boundaries), fixed, recipes)


def _names(space: TuningSpace) -> frozenset[str]:
    return frozenset(op for tunable in space.tunables for op in tunable.ops)


def _boundary(stored: Any, where: str) -> Boundary:
    known = ("producer", "consumers", "quantize", "dequantize")
    found = _object(stored, where, known, needed=("producer", "consumers"))
    producer, consumers = found["producer"], found["consumers"]
    names = isinstance(consumers, list) and all(isinstance(name, str) for name in consumers)
    if not (isinstance(producer, str) and names):
        raise ValueError(
            f"{where} must have the name of its producer and a list of its consumers' names, but "
            f"has {producer!r} and {consumers!r}."
        )
    costs = {
        key: _number(found.get(key, 0.0), f"{where} {key}") for key in ("quantize", "dequantize")
    }
    return Boundary(producer, tuple(consumers), **costs)


def _object(
    stored: Any, where: str, known: Sequence[str] | None = None, *, needed: Sequence[str] = ()
) -> Mapping[str, Any]:
    """A JSON object with certain keys.

    Raises:
        ValueError:
            If it is none, lacks one that is needed, or has one that is not known.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"{where} must be an object, but is {stored!r}.")
    for key in needed:
        if key not in stored:
            raise ValueError(f"{where} lacks the key {key!r}; it has {list(stored)}.")
    for key in stored:
        if known is not None and key not in known:
            raise ValueError(f"{where} has an unknown key {key!r}.{did_you_mean(key, known)}")
    return stored


def _number(value: Any, where: str) -> float:
    """A finite number.

    Raises:
        ValueError:
            If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, but is {value!r}.")
    return float(value)


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
    recipes: dict[str, dict[str, float]] = {}
    fixed = 0.0
    for table, weight in tables:
        fixed += weight * table.fixed
        for op, options in table.ops.items():
            row = ops.setdefault(op, {})
            for label, cost in options.items():
                row[label] = row.get(label, 0.0) + weight * cost
        for name, values in table.recipes.items():
            row = recipes.setdefault(name, {})
            for value, cost in values.items():
                row[value] = row.get(value, 0.0) + weight * cost
        boundaries += [
            Boundary(b.producer, b.consumers, weight * b.quantize, weight * b.dequantize)
            for b in table.boundaries
        ]
    return CostTable(measure, unit, ops, tuple(boundaries), fixed, recipes)
