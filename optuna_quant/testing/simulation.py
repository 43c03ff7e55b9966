"""What a backend must do whose trials evaluate a simulation first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import SimulatesCandidates
from optuna_quant.space.config import QuantConfig
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.same import assert_close


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.space.space import TuningSpace


class SimulationTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.SimulatesCandidates`; else skipped."""

    @pytest.fixture
    def simulating(self, backend: Backend) -> SimulatesCandidates:
        """The backend."""
        if not isinstance(backend, SimulatesCandidates):
            pytest.skip("The backend simulates no candidates.")
        return backend

    def test_the_simulation_stands_in_for_the_model(
        self,
        simulating: SimulatesCandidates,
        backend: Backend,
        configs: Mapping[str, QuantConfig],
        feed: Feed,
    ) -> None:
        for what in ("FP32", "default"):
            config = configs[what]
            simulated, model = simulating.simulated(config), backend.quantize(config)
            assert simulated.fingerprint == model.fingerprint, (
                f"{what}: the simulation has another fingerprint than the model."
            )
            assert simulated.nbytes == model.nbytes, (
                f"{what}: the simulation has {simulated.nbytes} bytes, the model {model.nbytes}."
            )
            assert list(simulated.inputs) == list(model.inputs), what
            assert list(simulated.outputs) == list(model.outputs), what
            said = f"{what}: the simulation gives something else than the model."
            assert_close(simulated.run(feed), model.run(feed), said)

    def test_what_the_model_does_not_have_is_not_simulated(
        self, simulating: SimulatesCandidates, space: TuningSpace
    ) -> None:
        with pytest.raises(ValueError, match="no such op"):
            simulating.simulated(QuantConfig({"no such op": space.tunables[0].default}))
