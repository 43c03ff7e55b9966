"""What a backend must do that offers sensitivities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import CountsPasses
from optuna_quant.backends.base import HasKey
from optuna_quant.backends.base import OffersSensitivities
from optuna_quant.backends.base import ScoresTogether
from optuna_quant.backends.base import ScoresWeightsApart
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.base import TakesBatches
from optuna_quant.backends.base import TakesSamples
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.lacks import lacks
from optuna_quant.testing.same import are_same
from optuna_quant.testing.told import told


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


def _check(scores: Mapping[str, float], ops: Sequence[str], what: str) -> None:
    """Check that each op has a score that can be added to others."""
    missing = [op for op in ops if op not in scores]
    assert not missing, f"{what}: no score of {', '.join(missing)}."
    wrong = {op: scores[op] for op in ops if not 0 <= scores[op] < math.inf}
    assert not wrong, f"{what}: scores must be finite and not negative: {wrong}."


def _made(backend: Backend, kind: SensitivityKind) -> Sensitivity:
    """The sensitivity of a kind; where there is none, the test is skipped."""
    assert isinstance(backend, OffersSensitivities), lacks(backend, OffersSensitivities)
    factory = backend.sensitivities().get(kind)
    if factory is None:
        pytest.skip(f"The backend has no sensitivity of the kind {kind}.")
    try:
        found = factory(outputs=None)
    except ImportError as error:
        pytest.skip(str(error))
    except ValueError as error:  # Without data to score with.
        if kind == SensitivityKind.BEST:
            pytest.fail(
                f"{kind} raises {error!r}, so that a search does without. Where there is nothing "
                "to score with, it must be None."
            )
        pytest.skip(str(error))
    if found is None:
        assert kind == SensitivityKind.BEST, (
            f"Only {SensitivityKind.BEST} may be None; without data {kind} must raise a "
            "ValueError."
        )
        pytest.skip("There is nothing to score with.")
    return found


def _key(sensitivity: Sensitivity) -> str:
    return sensitivity.key if isinstance(sensitivity, HasKey) else ""


class SensitivityTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.OffersSensitivities`, for each kind.

    A kind that the backend does not have, or that needs data that are not there or what is not
    installed, is skipped.
    """

    @pytest.fixture(params=list(SensitivityKind))
    def kind(self, request: pytest.FixtureRequest) -> SensitivityKind:
        """Each kind."""
        return SensitivityKind(request.param)

    @pytest.fixture
    def make_sensitivity(
        self, kind: SensitivityKind, make_backend: Callable[[], Backend]
    ) -> Callable[[], Sensitivity]:
        """Makes the sensitivity of a kind, each time with a backend of its own."""
        return lambda: _made(make_backend(), kind)

    def test_each_op_has_a_score(
        self, make_sensitivity: Callable[[], Sensitivity], every_option: Mapping[str, QuantConfig]
    ) -> None:
        sensitivity = make_sensitivity()
        for what, config in every_option.items():
            ops = config.quantized_ops
            if ops:
                _check(sensitivity(config, ops), ops, what)

    def test_an_op_in_fp32_scores_nothing(
        self, make_sensitivity: Callable[[], Sensitivity], configs: Mapping[str, QuantConfig]
    ) -> None:
        config = configs["one op in FP32"]
        scores = make_sensitivity()(config, list(config.ops))
        _check(scores, list(config.ops), "one op in FP32")
        floats = {op: scores[op] for op in config.fallback_ops}
        assert not any(floats.values()), f"What is not quantized must score 0: {floats}."

    def test_what_changes_outputs_has_a_score(
        self,
        make_sensitivity: Callable[[], Sensitivity],
        backend: Backend,
        configs: Mapping[str, QuantConfig],
        feed: Feed,
    ) -> None:
        config, fp32 = configs["default"], configs["FP32"]
        scores = make_sensitivity()(config, config.quantized_ops)
        if are_same(backend.quantize(config).run(feed), backend.quantize(fp32).run(feed)):
            pytest.skip("Quantization changes no output.")
        assert any(scores.values()), (
            "Quantization changes the outputs, but all scores are 0, so they tell nothing."
        )

    def test_weights_are_told_apart(
        self, make_sensitivity: Callable[[], Sensitivity], configs: Mapping[str, QuantConfig]
    ) -> None:
        sensitivity = make_sensitivity()
        if not isinstance(sensitivity, ScoresWeightsApart):
            pytest.skip("The sensitivity does not tell what comes from weights.")
        chosen = [configs["default"], configs["other op in FP32"]]
        ops = configs["default"].quantized_ops
        scores, parts = sensitivity.score_with_weights(chosen, ops)
        assert len(scores) == len(chosen), "There must be scores of each configuration."
        for config, found in zip(chosen, scores, strict=True):
            expected = sensitivity(config, ops)
            assert dict(found) == pytest.approx(dict(expected), rel=1e-4, abs=1e-9)
        assert parts.keys() <= set(ops), f"These are no ops: {parts.keys() - set(ops)}."
        assert all(0 <= part <= 1 for part in parts.values()), f"No parts of 1: {dict(parts)}."
        assert 0 < sensitivity.passes(2) <= sensitivity.passes(2, with_weights=True)

    def test_scores_are_the_same_each_time(
        self, make_sensitivity: Callable[[], Sensitivity], configs: Mapping[str, QuantConfig]
    ) -> None:
        config = configs["default"]
        one, other = make_sensitivity(), make_sensitivity()
        expected = one(config, config.quantized_ops)
        for again in (one, other):
            found = again(config, config.quantized_ops)
            assert dict(found) == pytest.approx(dict(expected), rel=1e-4, abs=1e-9)

    def test_key_is_the_same_each_time(self, make_sensitivity: Callable[[], Sensitivity]) -> None:
        one, other = make_sensitivity(), make_sensitivity()
        if not isinstance(one, HasKey) or not isinstance(other, HasKey):
            pytest.skip("The sensitivity has no options.")
        assert isinstance(one.key, str)
        assert one.key == other.key

    def test_scores_of_other_data_are_not_taken_for_these(
        self,
        make_sensitivity: Callable[[], Sensitivity],
        kind: SensitivityKind,
        backend: Backend,
        other_backend: Backend,
        space: TuningSpace,
        configs: Mapping[str, QuantConfig],
    ) -> None:
        one, other = make_sensitivity(), _made(other_backend, kind)
        config = configs["default"]
        ops = config.quantized_ops
        if dict(one(config, ops)) == pytest.approx(dict(other(config, ops)), rel=1e-4, abs=1e-9):
            pytest.skip("The other model or data give the same scores.")
        here, there = (told(backend, space), _key(one)), (told(other_backend, space), _key(other))
        assert here != there, (
            "The scores are others with the other model or data, but neither the signature nor "
            "the key of the sensitivity says so: a study would go on with the old ones."
        )

    def test_scores_together_are_those_one_by_one(
        self, make_sensitivity: Callable[[], Sensitivity], configs: Mapping[str, QuantConfig]
    ) -> None:
        sensitivity = make_sensitivity()
        if not isinstance(sensitivity, ScoresTogether):
            pytest.skip("The sensitivity scores one configuration at a time.")
        chosen = [configs["default"], configs["other op in FP32"]]
        ops = chosen[0].quantized_ops
        for config, found in zip(chosen, sensitivity.score_options(chosen, ops), strict=True):
            expected = sensitivity(config, ops)
            assert dict(found) == pytest.approx(dict(expected), rel=1e-4, abs=1e-9)

    def test_fewer_samples_or_batches_give_scores(
        self, make_sensitivity: Callable[[], Sensitivity], configs: Mapping[str, QuantConfig]
    ) -> None:
        sensitivity, ops = make_sensitivity(), configs["default"].quantized_ops
        fewer: dict[str, Sensitivity] = {}
        if isinstance(sensitivity, TakesSamples):
            fewer |= {f"{n} samples": sensitivity.with_samples(n) for n in (2, 6, 24)}
        if isinstance(sensitivity, TakesBatches):
            fewer["1 batch"] = sensitivity.with_batches(1)
        if not fewer:
            pytest.skip("The sensitivity takes neither.")
        for what, each in fewer.items():
            _check(each(configs["default"], ops), ops, what)

    def test_passes_grow_with_configurations(
        self, make_sensitivity: Callable[[], Sensitivity]
    ) -> None:
        sensitivity = make_sensitivity()
        if not isinstance(sensitivity, CountsPasses):
            pytest.skip("The sensitivity does not count passes.")
        assert 0 < sensitivity.passes(1) <= sensitivity.passes(2)
