"""What a backend must do that knows what configurations cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import ChoosesLatencyFeed
from optuna_quant.costs import Costs
from optuna_quant.costs import CountsCosts
from optuna_quant.costs import HasCostConditions
from optuna_quant.costs import MeasuresCosts
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.lacks import lacks


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# How far a table may be off, as a part of the size.
_SIZE_OF_FP32, _SIZE = 1e-3, 0.1

_HINT = (
    "A file has more than its weights (headers, scales), which what an option costs must have as "
    "well: quantize(QuantConfig({op: option})).nbytes less the FP32 model's, plus the bytes of "
    "the op in FP32. What is fixed is the FP32 model's less those of its ops in FP32."
)


class CostsTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.costs.MeasuresCosts` and what goes with it.

    A backend that is only a :class:`~optuna_quant.costs.CountsCosts` is held against the same.
    """

    @pytest.fixture
    def costs(self, backend: Backend, space: TuningSpace) -> Costs:
        """What the configurations of the default space cost."""
        if isinstance(backend, MeasuresCosts):
            return backend.costs(space)
        assert isinstance(backend, CountsCosts), lacks(backend, CountsCosts)
        return backend.counted_costs(space)

    def test_each_option_has_a_cost(
        self, costs: Costs, space: TuningSpace, every_option: Mapping[str, QuantConfig]
    ) -> None:
        assert costs.tables, "There is no cost table."
        costs.check(space)
        for measure, table in costs.tables.items():
            assert table.measure == measure, "A table must be called what it measures."
            for what, config in every_option.items():
                cost = table.cost(config)
                assert math.isfinite(cost), (measure, what)
                assert cost >= 0, (measure, what)

    def test_costs_are_kept_as_text(self, costs: Costs) -> None:
        assert Costs.loads(costs.dumps()) == costs

    def test_sizes_are_those_of_the_models(
        self, costs: Costs, backend: Backend, every_option: Mapping[str, QuantConfig]
    ) -> None:
        if "size" not in costs.tables:
            pytest.skip("The size is not among the costs.")
        for what, config in every_option.items():
            predicted, found = costs.table("size").cost(config), backend.quantize(config).nbytes
            near = _SIZE_OF_FP32 if not config.quantized_ops else _SIZE
            assert predicted == pytest.approx(found, rel=near), (
                f"{what}: the table says {predicted:g} bytes, and the model has {found}. {_HINT}"
            )

    def test_what_is_counted_is_what_is_measured(
        self, costs: Costs, backend: Backend, space: TuningSpace
    ) -> None:
        if not isinstance(backend, CountsCosts) or not isinstance(backend, MeasuresCosts):
            pytest.skip("The backend does not both count and measure costs.")
        counted = backend.counted_costs(space)
        assert counted.tables.keys() <= costs.tables.keys()
        for measure, table in counted.tables.items():
            for config in (space.fp32(), space.default()):
                expected = costs.table(measure).cost(config)
                assert table.cost(config) == pytest.approx(expected, rel=1e-2)

    def test_conditions_are_those_of_the_costs(self, costs: Costs, backend: Backend) -> None:
        if not isinstance(backend, HasCostConditions):
            pytest.skip("The backend does not tell the conditions of its costs.")
        assert dict(backend.cost_conditions()) == dict(costs.conditions)

    def test_times_are_measured_on_samples_that_fit(
        self, costs: Costs, backend: Backend, space: TuningSpace
    ) -> None:
        found = backend.latency_feed() if isinstance(backend, ChoosesLatencyFeed) else None
        if found is None:
            pytest.skip("The backend does not say what its times are measured on.")
        count, feed = found
        model = backend.quantize(space.fp32())
        assert count >= 1
        assert {spec.name for spec in model.inputs} <= set(feed)
        assert len(model.run(feed)) == len(model.outputs)
        assert costs.conditions.get("batch", str(count)) == str(count), (
            "The costs must be those of the samples that latency_feed() gives."
        )
