"""What a backend must do that trains models in their trials."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna.trial import FixedTrial
import pytest

from optuna_quant.backends.base import Backend
from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.same import assert_close


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna.pruners import BasePruner

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.base.training import Hyperparameter
    from optuna_quant.space.config import QuantConfig


class _Trial:
    """A :class:`~optuna_quant.backends.base.TrainingTrial` without a study."""

    def __init__(self, hyperparameters: Mapping[str, Hyperparameter]) -> None:
        self.trial = FixedTrial(dict(hyperparameters))

    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        return self.trial.params

    def report(self, value: float, step: int, *, pruner: BasePruner | None = None) -> None:
        assert isinstance(step, int), f"A step must be an int, not {step!r}."
        float(value)

    def resume(self, name: str) -> tuple[bytes, int] | None:
        return None

    def save(self, name: str, state: bytes, step: int) -> None:
        assert isinstance(state, bytes)


class TrainingTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.TrainsCandidates`; else skipped."""

    @pytest.fixture
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """What the trial suggests, by name. Default: nothing."""
        return {}

    @pytest.fixture
    def trained_config(self, backend: Backend, configs: Mapping[str, QuantConfig]) -> QuantConfig:
        """A configuration whose model is trained. Default: that of the space's defaults."""
        if not isinstance(backend, TrainsCandidates) or not backend.trains(configs["default"]):
            pytest.skip("The backend trains no candidates.")
        return configs["default"]

    def test_it_says_what_is_trained(
        self, backend: Backend, every_option: Mapping[str, QuantConfig]
    ) -> None:
        if not isinstance(backend, TrainsCandidates):
            pytest.skip("The backend trains no candidates.")
        for what, config in every_option.items():
            found: Any = backend.trains(config)
            assert found in (True, False), f"{what}: trains must give a bool, not {found!r}."

    def test_what_is_trained_is_what_is_built_from_the_record(
        self,
        make_backend: Callable[[], Backend],
        trained_config: QuantConfig,
        hyperparameters: Mapping[str, Hyperparameter],
        feed: Feed,
    ) -> None:
        one, other = make_backend(), make_backend()
        assert isinstance(one, TrainsCandidates) and isinstance(other, TrainsCandidates)
        trial = _Trial(hyperparameters)
        trained = one.trained(trained_config, trial)
        used = dict(trial.hyperparameters)
        for where, backend in {"the same": one, "another": other}.items():
            model = backend.quantize_trained(trained_config, used)
            assert model.fingerprint == trained.fingerprint, (
                f"In {where} process quantize_trained gives another model than the training has, "
                "so the answer would not be what was evaluated."
            )
            assert model.nbytes == trained.nbytes
        said = "The model gives something else than what was evaluated."
        assert_close(one.quantize_trained(trained_config, used).run(feed), trained.run(feed), said)

    def test_a_hyperparameter_that_is_missing_is_an_error(
        self,
        make_backend: Callable[[], Backend],
        trained_config: QuantConfig,
        hyperparameters: Mapping[str, Hyperparameter],
    ) -> None:
        if not hyperparameters:
            pytest.skip("The fixture hyperparameters is not given.")
        backend = make_backend()
        assert isinstance(backend, TrainsCandidates)
        with pytest.raises(ValueError, match=next(iter(hyperparameters))):
            backend.quantize_trained(trained_config, {})
