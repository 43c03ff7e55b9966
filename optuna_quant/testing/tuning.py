"""A whole search must work with every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import optuna
import pytest

from optuna_quant.backends.base import native_of
from optuna_quant.costs import CountsCosts
from optuna_quant.costs import MeasuresCosts
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.data.random_inputs import random_feed
from optuna_quant.study.trial_view import TrialView
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from pathlib import Path

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.result import TuningResult


_LENIENT = AccuracyCriterion(criterion="absolute", tolerable_loss=100.0)
"""Any quantized model is good enough."""


class TuningTestCase(BackendFixtures):
    """Searches with :func:`optuna_quant.tune`, on data and with a function."""

    @pytest.fixture
    def data(self, backend: Backend, space: TuningSpace) -> Mapping[str, Any]:
        """Samples without labels: an array for each input, samples along the first axis.

        Default: random numbers.
        """
        return random_feed(backend.quantize(space.fp32()).inputs, batch=40, seed=1)

    def _tune(self, make_backend: Callable[[], Backend], **options: Any) -> TuningResult:
        options = {
            "accuracy_criterion": _LENIENT,
            "tuning_criterion": TuningCriterion(max_trials=6, objective="ops"),
            "measure_gain": False,
            **options,
        }
        return tune(backend=make_backend(), **options)

    def test_search_on_data(
        self, make_backend: Callable[[], Backend], data: Mapping[str, Any], tmp_path: Path
    ) -> None:
        output = tmp_path / "model"
        result = self._tune(make_backend, data=data, metric="cosine", output=output)
        assert result.met
        assert result.config is not None and result.config.quantized_ops
        assert output.stat().st_size > 0
        report = result.report()
        assert set(result.config.ops) <= set(report["op"])

    def test_search_for_the_smallest(
        self, make_backend: Callable[[], Backend], data: Mapping[str, Any], space: TuningSpace
    ) -> None:
        backend = make_backend()
        if not isinstance(backend, CountsCosts) or "size" not in (
            backend.counted_costs(space).tables
        ):
            pytest.skip("The backend does not count sizes.")
        # What measures costs is searched for the fastest by default.
        asked = "size" if isinstance(backend, MeasuresCosts) else None
        criterion = TuningCriterion(max_trials=6, objective=asked)
        result = self._tune(make_backend, data=data, metric="cosine", tuning_criterion=criterion)
        assert result.met or result.is_fp32  # No model may be smaller.
        assert result.objective == "size"
        assert result.cost == result.model().nbytes

    def test_answer_is_built_again(
        self, make_backend: Callable[[], Backend], data: Mapping[str, Any]
    ) -> None:
        result = self._tune(make_backend, data=data, metric="cosine")
        assert result.trial is not None
        model = result.model()
        view = TrialView(result.trial)
        assert model.fingerprint == view.fingerprint
        assert model.nbytes == view.model_bytes

    def test_fp32_has_the_metric_of_itself(
        self, make_backend: Callable[[], Backend], data: Mapping[str, Any]
    ) -> None:
        result = self._tune(make_backend, data=data, metric="cosine")
        assert result.baseline == pytest.approx(1.0)

    def test_function_gets_the_runtimes_own_object(
        self, make_backend: Callable[[], Backend], space: TuningSpace
    ) -> None:
        given: list[Any] = []

        def evaluate(model: Any) -> float:
            given.append(model)
            return 1.0

        result = self._tune(make_backend, evaluate=evaluate)
        assert result.met
        kinds = {type(model) for model in given}
        assert kinds == {type(native_of(make_backend().quantize(space.fp32())))}

    def test_search_goes_on_with_the_record(
        self, make_backend: Callable[[], Backend], data: Mapping[str, Any]
    ) -> None:
        storage = optuna.storages.InMemoryStorage()
        options = {"data": data, "metric": "cosine", "storage": storage, "study_name": "one"}
        first = self._tune(make_backend, **options)
        trials = len(first.study.trials)
        second = self._tune(make_backend, **options)
        assert len(second.study.trials) == trials
        assert second.config == first.config
        assert second.metric == first.metric
