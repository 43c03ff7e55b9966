"""What a backend must do that knows what configurations cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from optuna_quant.costs import Costs
from optuna_quant.costs import CountsCosts
from optuna_quant.costs import HasCostConditions
from optuna_quant.costs import MeasuresCosts
from optuna_quant.testing.fixtures import BackendFixtures


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


class CostsTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.costs.MeasuresCosts`, and of what goes with it."""

    @pytest.fixture
    def costs(self, backend: Backend, space: TuningSpace) -> Costs:
        """What the configurations of the default space cost."""
        assert isinstance(backend, MeasuresCosts), "It measures no costs."
        return backend.costs(space)

    def test_each_option_has_a_cost(
        self, costs: Costs, space: TuningSpace, configs: Mapping[str, QuantConfig]
    ) -> None:
        assert costs.tables
        costs.check(space)
        for measure, table in costs.tables.items():
            assert table.measure == measure
            for what, config in configs.items():
                cost = table.cost(config)
                assert math.isfinite(cost), (measure, what)
                assert cost >= 0, (measure, what)

    def test_costs_are_kept_as_text(self, costs: Costs) -> None:
        assert Costs.loads(costs.dumps()) == costs

    def test_size_of_fp32_is_that_of_the_model(
        self, costs: Costs, backend: Backend, space: TuningSpace
    ) -> None:
        if "size" not in costs.tables:
            pytest.skip("The size is not among the costs.")
        fp32 = space.fp32()
        predicted = costs.table("size").cost(fp32)
        assert predicted == pytest.approx(backend.quantize(fp32).nbytes, rel=1e-3)

    def test_what_is_counted_is_what_is_measured(
        self, costs: Costs, backend: Backend, space: TuningSpace
    ) -> None:
        if not isinstance(backend, CountsCosts):
            pytest.skip("The backend counts no costs.")
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
