"""What a search minimizes: time, size, operations, a weighted sum, or the user's own.

An objective gives the cost of a model from its *measures*: numbers by name, such as
``{"latency": 0.00046, "size": 59600.0, "ops": 3.0}``. So the best can be found again from the
record of a study at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import math
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import TypeAlias
from typing import runtime_checkable

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.space.left_out import shown_bytes


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig


LATENCY = "latency"
SIZE = "size"
OPS = "ops"
BIT_OPERATIONS = "bit_operations"

MEASURES: Mapping[str, str] = MappingProxyType(
    {
        LATENCY: "the seconds of a run, as the cost table predicts them",
        SIZE: "the bytes of the model",
        OPS: "the number of ops in fallback",
        "multiply_adds": "the multiply-adds of a sample that are computed in floating point",
        BIT_OPERATIONS: "the multiply-adds of a sample, each times the bits of its two operands",
    }
)
"""The measures that have a name, each with what it is."""

ALIASES: Mapping[str, str] = MappingProxyType({"fallback_ops": OPS, "model_size": SIZE})
"""What objectives were called in earlier versions."""


@runtime_checkable
class Objective(Protocol):
    """What a search minimizes.

    An object of the user's with these members is an objective. If it has a method
    ``measure(config)`` as well, the measure that has the objective's name is what that gives;
    other measures are those of :data:`MEASURES`.
    """

    @property
    def name(self) -> str:
        """What it is called in results and records."""
        ...

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that it needs."""
        ...

    def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
        """The cost of a model; infinite if a measure that it needs is not known.

        Args:
            measures:
                The measures of the model, by name.
            fp32:
                Those of the FP32 model, as far as they are known.
        """
        ...

    def show(self, cost: float) -> str:
        """A cost for people, with its unit."""
        ...


ObjectiveLike: TypeAlias = str | Mapping[str, float] | Objective | Callable[["QuantConfig"], float]
"""What :func:`as_objective` takes."""


@dataclass(frozen=True)
class MeasureObjective:
    """One measure.

    Args:
        name:
            The measure, one of :data:`MEASURES`.
    """

    name: str

    @property
    def measures(self) -> tuple[str, ...]:
        """The measure."""
        return (self.name,)

    def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
        """The measure itself."""
        return float(measures.get(self.name, math.inf))

    def show(self, cost: float) -> str:
        """The cost with its unit."""
        return show_measure(self.name, cost)


@dataclass(frozen=True)
class WeightedObjective:
    """A weighted mean of several measures, each relative to that of the FP32 model.

    So FP32 costs 1, and a model of half its time and a quarter of its size costs 0.425 with the
    weights 0.7 for time and 0.3 for size.

    Args:
        weights:
            The weight of each measure; only their ratios count.
    """

    weights: Mapping[str, float] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (dict(self.weights),)

    @property
    def name(self) -> str:
        """The weights as the command line takes them: ``latency=0.7,size=0.3``."""
        return ",".join(f"{measure}={weight:g}" for measure, weight in self.weights.items())

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that have a weight."""
        return tuple(self.weights)

    def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
        """The weighted mean; infinite if a measure of the model or of FP32 is not known."""
        total = 0.0
        for measure, weight in self.weights.items():
            reference = fp32.get(measure, 0.0)
            if measure not in measures or not reference > 0:
                return math.inf
            total += weight * measures[measure] / reference
        return total / sum(self.weights.values())

    def show(self, cost: float) -> str:
        """The cost as a part of that of FP32."""
        return f"{cost:.3g} of FP32"


@dataclass(frozen=True)
class FunctionObjective:
    """A function of the user's.

    Args:
        function:
            Gives the cost of a configuration: a finite number, the smaller the better. It must
            give the same number each time.
    """

    function: Callable[[QuantConfig], float]

    @property
    def name(self) -> str:
        """The function's name."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return "own" if name == "<lambda>" else str(name)

    @property
    def measures(self) -> tuple[str, ...]:
        """Its own one."""
        return (self.name,)

    def measure(self, config: QuantConfig) -> float:
        """What the function gives.

        Raises:
            ValueError:
                If that is no finite number.
        """
        value: Any = self.function(config)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(
                f"The objective {self.name!r} must give a finite number for a configuration, but "
                f"it has given {value!r}."
            )
        return float(value)

    def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
        """Its measure."""
        return float(measures.get(self.name, math.inf))

    def show(self, cost: float) -> str:
        """The cost with the function's name."""
        return f"{cost:.4g} ({self.name})"


def as_objective(value: ObjectiveLike) -> Objective:
    """The objective that a user means.

    Args:
        value:
            The name of a measure (:data:`MEASURES`, or an older name from :data:`ALIASES`);
            weights of several as a mapping, or as the text ``"latency=0.7,size=0.3"``; a
            function that gives the cost of a configuration; or an object that is an
            :class:`Objective`.

    Raises:
        ValueError:
            If it is none of them; the message names what is wrong.
    """
    if isinstance(value, str):
        if "=" in value:
            return _weighted(_parsed(value))
        return MeasureObjective(_known_measure(value, "objective"))
    if isinstance(value, Mapping):
        return _weighted(value)
    if isinstance(value, Objective) and not isinstance(value, type):
        return value
    if callable(value) and not isinstance(value, type):
        return FunctionObjective(value)
    raise ValueError(
        f"objective must be {_CHOICES}, weights of several such as "
        "{'latency': 0.7, 'size': 0.3}, a function that gives the cost of a configuration, or an "
        f"optuna_quant.costs.Objective, but got {value!r}."
    )


_MEANT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("speed", "time", "performance", "runtime", "seconds"), LATENCY),
        **dict.fromkeys(("modelsize", "footprint", "memory", "bytes"), SIZE),
        **dict.fromkeys(("fallback", "fallbacks"), OPS),
        **dict.fromkeys(("macs", "flops"), "multiply_adds"),
        **dict.fromkeys(("bops", "bitops"), "bit_operations"),
    }
)

_CHOICES = f"one of {', '.join(MEASURES)}"


def _known_measure(name: object, what: str) -> str:
    found = ALIASES.get(str(name), str(name))
    if found in MEASURES:
        return found
    meant = _MEANT.get(str(name).lower())
    hint = did_you_mean(meant or str(name), [*MEASURES, *ALIASES])
    more = ", or weights of several (latency=0.7,size=0.3)" if what == "objective" else ""
    raise ValueError(f"{what} must be {_CHOICES}{more}, but got {name!r}.{hint}")


def _parsed(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weights[name] = float(number)
        except ValueError:
            raise ValueError(
                f"objective: weights are written as latency=0.7,size=0.3, but got {text!r}."
            ) from None
    return weights


def _weighted(weights: Mapping[Any, Any]) -> Objective:
    found: dict[str, float] = {}
    for name, weight in weights.items():
        measure = _known_measure(name, "A measure with a weight in objective")
        is_number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise ValueError(
                f"objective: the weight of {name!r} must be a number of at least 0, but got "
                f"{weight!r}."
            )
        if measure in found:
            raise ValueError(f"objective: the measure {measure!r} has two weights.")
        found[measure] = float(weight)
    found = {measure: weight for measure, weight in found.items() if weight}
    if not found:
        raise ValueError("objective: weights are given, but none is above 0.")
    if len(found) == 1:
        return MeasureObjective(next(iter(found)))
    return WeightedObjective(found)


def show_measure(measure: str, value: float) -> str:
    """The value of a measure for people, with its unit."""
    if measure == LATENCY:
        return shown_seconds(value)
    if measure == SIZE:
        return shown_bytes(value)
    if measure == OPS:
        return f"{value:g} op{'' if value == 1 else 's'} in fallback"
    if measure == "multiply_adds":
        return f"{_shown_count(value)} multiply-adds"
    if measure == "bit_operations":
        return f"{_shown_count(value)} bit operations"
    return f"{value:.4g}"


def shown_seconds(seconds: float) -> str:
    """A time for people: three digits in seconds, milliseconds or microseconds."""
    size = abs(seconds)
    for unit, one in (("s", 1.0), ("ms", 1e-3)):
        if size >= 0.995 * one or (unit == "ms" and size >= 0.0995 * one):
            return f"{_three_digits(seconds / one)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} us" if seconds else "0 s"


def _three_digits(value: float) -> str:
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text


def _shown_count(value: float) -> str:
    for unit, one in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= one:
            return f"{value / one:.3g} {unit}"
    return f"{value:g}"
