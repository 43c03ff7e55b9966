"""Configurations as points: tuples with the position of each parameter's choice."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


Point: TypeAlias = tuple[int, ...]
"""For each parameter of the space, the position of its choice."""


class Points:
    """The points of a space, and which of them a search may propose.

    Args:
        space:
            The tuning space.
        fallback:
            Whether points with ops in fallback may be proposed.
    """

    def __init__(self, space: TuningSpace, *, fallback: bool) -> None:
        self._space = space
        self.allowed: tuple[tuple[int, ...], ...] = tuple(
            tuple(range(len(p.choices))) if fallback else p.quantized for p in space.parameters
        )
        """For each parameter, the positions of the choices that may be proposed."""
        self._allowed_sets = [frozenset(positions) for positions in self.allowed]
        self._quantized = [
            frozenset(
                i for i, v in enumerate(p.values) if isinstance(v, OpConfig) and v.is_quantized
            )
            for p in space.parameters
        ]
        fixed = [t.default for t in space.tunables if len(t.options) == 1]
        # Without any quantized option there is nothing to tell apart.
        self._always_counts = any(o.is_quantized for o in fixed) or not any(self._quantized)

    def from_params(self, params: Mapping[str, Any]) -> Point | None:
        """The point of a trial's parameters; :obj:`None` if they are not of this space."""
        try:
            return tuple(p.position[params[p.name]] for p in self._space.parameters)
        except (KeyError, TypeError):  # TypeError: a value is not hashable.
            return None

    def params_of(self, point: Point) -> dict[str, Any]:
        """The parameters of a trial at this point."""
        parameters = self._space.parameters
        return {p.name: p.choices[i] for p, i in zip(parameters, point, strict=True)}

    def config_of(self, point: Point) -> QuantConfig:
        """The configuration."""
        return self._space.config_of(point)

    def key_of(self, point: Point) -> str:
        """The configuration's key."""
        key = self._space.key_from_params(self.params_of(point))
        assert key is not None
        return key

    def is_allowed(self, point: Point) -> bool:
        """Whether the search may propose this point."""
        return all(i in known for i, known in zip(point, self._allowed_sets, strict=True))

    def is_floating(self, point: Point) -> bool:
        """Whether no op is quantized: such a model is no answer."""
        if self._always_counts:
            return False
        return not any(i in known for i, known in zip(point, self._quantized, strict=True))

    def changes(self, point: Point) -> Iterator[Point]:
        """The allowed points that differ from ``point`` in one parameter."""
        for number, positions in enumerate(self.allowed):
            for position in positions:
                if position != point[number]:
                    yield (*point[:number], position, *point[number + 1 :])
