"""Configurations between the cheapest and floating point, for each budget of error."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.costs.table import CostTable
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


_MULTIPLIERS = 24
_MOST_BETWEEN = 6
# Capacities are integers of 32 bits, and their sum must be one.
_LARGEST_FLOW = 1 << 29


@dataclass(frozen=True)
class _Kind:
    """The options of a tunable that are quantized, or those that are not."""

    options: tuple[OpConfig, ...]
    costs: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class _Rows:
    """What the options of one kind cost and weigh, a row for each tunable.

    Rows are filled up with options that cost infinitely much.
    """

    costs: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, kinds: Sequence[_Kind]) -> _Rows:
        longest = max((len(kind.options) for kind in kinds), default=0)
        costs = np.full((len(kinds), max(1, longest)), np.inf)
        weights = np.zeros_like(costs)
        for row, kind in enumerate(kinds):
            costs[row, : len(kind.options)] = kind.costs
            weights[row, : len(kind.options)] = kind.weights
        return cls(costs, weights)

    def best(self, multiplier: float) -> tuple[NDArray[np.float64], list[int]]:
        """The least ``cost + multiplier * weight`` of each row, and the option that has it."""
        values = self.costs + multiplier * self.weights
        positions = np.argmin(values, axis=1)
        return values[np.arange(len(values)), positions], positions.tolist()


def tradeoff(
    table: CostTable,
    space: TuningSpace,
    weights: Mapping[str, Mapping[str, float]],
    *,
    forbidden: Mapping[str, Collection[str]] | None = None,
) -> list[QuantConfig]:
    """Configurations from the cheapest to the one with the smallest sum of weights.

    Each minimizes ``cost + multiplier * sum of weights`` for a multiplier (H. Everett,
    "Generalized Lagrange multiplier method for solving problems of optimum allocation of
    resources", 1963): no other configuration has a smaller sum at that cost. With boundaries that
    is a minimum cut, since changes of precision only ever cost (negative costs of boundaries
    count as none here). Where neighbors differ in several ops, some between them are added, in
    the order of what an op costs for its weight.

    Args:
        table:
            The costs.
        space:
            The tuning space.
        weights:
            A weight for each op and option, such as an estimated error. What is left out has 0.
        forbidden:
            The labels of options that an op must not have.

    Returns:
        Different configurations, the cheapest first. Recipes have their default values.

    Raises:
        ValueError:
            If an op has no option left, or the table lacks one.
    """
    problem = _Problem.of(table, space, weights, forbidden or {})
    base = space.default()
    found: list[QuantConfig] = []
    keys: set[str] = set()
    last: list[OpConfig] | None = None
    for chosen in problem.solutions():
        if chosen == last:
            continue
        steps = [chosen] if last is None else [*problem.between(last, chosen), chosen]
        for step in steps:
            changes = {
                op: option
                for tunable, option in zip(space.tunables, step, strict=True)
                for op in tunable.ops
                if option is not base.ops[op]
            }
            config = base.with_ops(changes)
            if config.key not in keys:
                keys.add(config.key)
                found.append(config)
        last = chosen
    return found


@dataclass(frozen=True)
class _Network:
    """The edges of a graph whose capacities are given one time after the other.

    Args:
        source:
            Where the flow comes from.
        sink:
            Where it goes to.
        order:
            Which of the edges that were given comes when: sorted by their ends.
        starts:
            The first edge of each node.
        columns:
            Where the edges lead to.
    """

    source: int
    sink: int
    order: NDArray[np.int64]
    starts: NDArray[np.int32]
    columns: NDArray[np.int32]

    @classmethod
    def of(
        cls, head: NDArray[np.int64], tail: NDArray[np.int64], *, source: int, sink: int
    ) -> _Network:
        """The network of different edges."""
        order = np.lexsort((tail, head))
        starts = np.searchsorted(head[order], np.arange(max(source, sink) + 2))
        # SciPy 1.11 takes places of 32 bits only.
        return cls(source, sink, order, starts.astype(np.int32), tail[order].astype(np.int32))

    def graph(self, capacities: NDArray[np.float64]) -> Any:
        """The graph with these capacities."""
        from scipy.sparse import csr_array

        data = capacities[self.order].astype(np.int32)
        nodes = len(self.starts) - 1
        return csr_array((data, self.columns, self.starts), shape=(nodes, nodes))


@dataclass(frozen=True)
class _Problem:
    """The graph of a minimum cut: a node per tunable, and one per boundary that can be paid."""

    tunables: Sequence[Tunable]
    quantized: Sequence[_Kind]
    floating: Sequence[_Kind]
    edges: NDArray[np.int64]
    """Pairs of nodes, of shape ``(edges, 2)``; ``-1`` stands for an op that runs in floats."""
    prices: NDArray[np.float64]
    """What is paid if the first node is quantized and the second is not; infinite: never."""
    nodes: int

    @classmethod
    def of(
        cls,
        table: CostTable,
        space: TuningSpace,
        weights: Mapping[str, Mapping[str, float]],
        forbidden: Mapping[str, Collection[str]],
    ) -> _Problem:
        kinds: dict[bool, list[_Kind]] = {True: [], False: []}
        for tunable in space.tunables:
            left = [
                option
                for option in tunable.options
                if all(option.label not in forbidden.get(op, ()) for op in tunable.ops)
            ]
            if not left:
                raise ValueError(f"No option of op {tunable.name!r} is left: all are forbidden.")
            for is_quantized, into in kinds.items():
                options = tuple(o for o in left if o.is_quantized == is_quantized)
                costs = [
                    sum(table.option_cost(op, o.label) for op in tunable.ops) for o in options
                ]
                loads = [
                    sum(weights.get(op, {}).get(o.label, 0.0) for op in tunable.ops)
                    for o in options
                ]
                into.append(_Kind(options, np.array(costs), np.array(loads)))
        place = {op: i for i, tunable in enumerate(space.tunables) for op in tunable.ops}
        edges: list[tuple[int, int]] = []
        prices: list[float] = []
        nodes = len(space.tunables)
        for boundary in table.boundaries:
            producer = place.get(boundary.producer, -1)
            consumers = sorted({place.get(op, -1) for op in boundary.consumers} - {producer})
            if not consumers:
                continue
            if boundary.quantize > 0:
                # Some consumer is quantized, and the producer is not.
                edges += [(consumer, nodes) for consumer in consumers if consumer >= 0]
                prices += [np.inf for consumer in consumers if consumer >= 0]
                edges.append((nodes, producer))
                prices.append(boundary.quantize)
                nodes += 1
            if boundary.dequantize > 0 and producer >= 0:
                edges.append((producer, nodes))
                prices.append(boundary.dequantize)
                edges += [(nodes, consumer) for consumer in consumers]
                prices += [np.inf for _ in consumers]
                nodes += 1
        return cls(
            space.tunables,
            kinds[True],
            kinds[False],
            np.array(edges, dtype=np.int64).reshape(-1, 2),
            np.array(prices),
            nodes,
        )

    def multipliers(self) -> list[float]:
        """From none to so large that the weights alone count."""
        ratios = []
        for quantized, floating in zip(self.quantized, self.floating, strict=True):
            costs = np.concatenate([quantized.costs, floating.costs])
            loads = np.concatenate([quantized.weights, floating.weights])
            spread = float(np.ptp(costs)) + float(self.prices[np.isfinite(self.prices)].sum())
            ratios += [spread / load for load in loads if load > 0 and spread > 0]
        if not ratios:
            return [0.0, 1.0]  # Nothing is bought: whatever the price, the weights alone count.
        # Below the smallest even the heaviest op is worth its weight.
        low, high = 1e-4 * min(ratios), 2 * max(ratios)
        return [0.0, *np.geomspace(low, high, _MULTIPLIERS).tolist()]

    def solutions(self) -> list[list[OpConfig]]:
        """What :meth:`solve` gives for each multiplier.

        What is best at two multipliers is best between them as well: the value of each
        configuration is a line over the multiplier, and the best value is concave.
        """
        multipliers = self.multipliers()
        found = {i: self.solve(multipliers[i]) for i in (0, len(multipliers) - 1)}
        open_spans = [(0, len(multipliers) - 1)]
        while open_spans:
            first, last = open_spans.pop()
            if last - first < 2 or found[first] == found[last]:
                continue
            middle = (first + last) // 2
            found[middle] = self.solve(multipliers[middle])
            open_spans += [(first, middle), (middle, last)]
        return [found[i] for i in sorted(found)]

    def solve(self, multiplier: float) -> list[OpConfig]:
        """The option of each tunable that together cost least at a price for the weight."""
        quantized, floating = (rows.best(multiplier) for rows in self._rows)
        is_quantized = self._cut(quantized[0], floating[0]).tolist()
        return [
            kind.options[a] if first else other.options[b]
            for first, kind, a, other, b in zip(
                is_quantized, self.quantized, quantized[1], self.floating, floating[1], strict=True
            )
        ]

    @cached_property
    def _rows(self) -> tuple[_Rows, _Rows]:
        """The options that are quantized, and those that are not."""
        return _Rows.of(self.quantized), _Rows.of(self.floating)

    def _cut(
        self, quantized: NDArray[np.float64], floating: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which tunables are quantized in the cheapest labelling, given what each costs alone."""
        free = np.isfinite(quantized) & np.isfinite(floating)
        if not len(self.edges):
            return np.asarray(quantized <= floating)
        from scipy.sparse.csgraph import breadth_first_order
        from scipy.sparse.csgraph import maximum_flow

        gains = np.where(free, floating - quantized, np.where(np.isfinite(quantized), 1, -1))
        finite = np.isfinite(self.prices)
        total = float(np.abs(gains[free]).sum() + self.prices[finite].sum()) or 1.0
        unit = _LARGEST_FLOW / (2 * total)
        # Quantized is the side of the source: a cut edge from it to the sink has a cost.
        whole = np.ceil(np.where(free, np.abs(gains) * unit, _LARGEST_FLOW))
        capacities = [
            np.where(gains > 0, whole, 0),
            np.where(gains > 0, 0, whole),
            np.where(finite, np.ceil(self.prices * unit), _LARGEST_FLOW),
        ]
        network = self._network
        graph = network.graph(np.minimum(np.concatenate(capacities), _LARGEST_FLOW))
        left = graph - maximum_flow(graph, network.source, network.sink).flow
        left.data = np.maximum(left.data, 0)
        left.eliminate_zeros()
        reached = breadth_first_order(left, network.source, return_predecessors=False)
        count = len(quantized)
        found = np.zeros(self.nodes + 2, dtype=bool)
        found[reached] = True
        # What is neither way cheaper stays quantized, unless something draws it to floats.
        return np.asarray(found[:count] | ((gains == 0) & self._is_idle(found)[:count]))

    @cached_property
    def _network(self) -> _Network:
        """The edges of the source, those to the sink, and those of the boundaries."""
        source, sink = self.nodes, self.nodes + 1
        own = np.arange(len(self.quantized))
        head = [np.full_like(own, source), own, self.edges[:, 0]]
        tail = [own, np.full_like(own, sink), self.edges[:, 1]]
        tail[2] = np.where(tail[2] < 0, sink, tail[2])
        return _Network.of(np.concatenate(head), np.concatenate(tail), source=source, sink=sink)

    def _is_idle(self, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The nodes that no boundary connects with anything."""
        idle = np.ones(len(found), dtype=bool)
        idle[self.edges[self.edges >= 0]] = False
        return idle

    def between(
        self, cheaper: Sequence[OpConfig], pricier: Sequence[OpConfig]
    ) -> list[list[OpConfig]]:
        """Some configurations between two, the cheaper first."""
        differ = [i for i, (a, b) in enumerate(zip(cheaper, pricier, strict=True)) if a != b]
        if len(differ) < 2:
            return []

        def price(i: int) -> float:
            (cost_a, weight_a), (cost_b, weight_b) = (
                self._values(i, cheaper[i]),
                self._values(i, pricier[i]),
            )
            return (cost_b - cost_a) / max(weight_a - weight_b, 1e-300)

        order = sorted(differ, key=price)
        sizes = np.unique(np.linspace(1, len(order) - 1, _MOST_BETWEEN).astype(int))
        found = []
        for size in sizes:
            step = list(cheaper)
            for i in order[:size]:
                step[i] = pricier[i]
            found.append(step)
        return found

    def _values(self, i: int, option: OpConfig) -> tuple[float, float]:
        kind = self.quantized[i] if option.is_quantized else self.floating[i]
        position = kind.options.index(option)
        return float(kind.costs[position]), float(kind.weights[position])
