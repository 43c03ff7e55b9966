"""Searches with sensitivities that the user gives: what they leave out, and what they replace."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import logging
from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import onnx_models
import optuna
import pytest
from spaces import STATIC

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import SensitivityTable
from optuna_quant import TuningResult
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.tuning.sensitivities.table import OptionSensitivity


DAMAGE = {"a": 0.2, "b": 0.0, "c": 0.3, "d": 0.0}
TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
OTHER = OpConfig.from_label("static a=uint8/asym/per_tensor/kl w=int8/sym/per_tensor/minmax")
X = onnx_models.samples(8, 2, 8, 8)


def by_damage(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    return {op: DAMAGE[op] * (2.0 if config.ops[op] == OTHER else 1.0) for op in ops}


def table_of(backend: FakeBackend | None = None, kind: str = "op_error") -> SensitivityTable:
    return optuna_quant.sensitivity(
        backend=backend or FakeBackend(DAMAGE), scores=by_damage, kind=kind
    )


def tuned(table: SensitivityTable | str | Path | None, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {"backend": FakeBackend(DAMAGE), "strategy": "mse"}
    return optuna_quant.tune(
        evaluate=evaluate, accuracy_criterion=TOLERANT, sensitivities=table, **given | kwargs
    )


def evaluate(model: FakeModel) -> float:
    return model.accuracy


def with_rows(*rows: OptionSensitivity) -> SensitivityTable:
    return SensitivityTable(table_of().model, None, rows)


@pytest.fixture
def optuna_log(caplog: pytest.LogCaptureFixture) -> Any:
    optuna.logging.enable_propagation()
    yield caplog
    optuna.logging.disable_propagation()


def test_the_most_sensitive_op_comes_first() -> None:
    backend = FakeBackend(DAMAGE, options=(STATIC, OTHER, FP32))
    table = table_of(backend)
    assert [row.op for row in table.rows] == ["c", "c", "a", "a", "b", "b", "d", "d"]
    assert [row.option for row in table.rows[:2]] == [STATIC.label, OTHER.label]
    assert [row.score for row in table.rows[:4]] == [0.3, 0.6, 0.2, 0.4]
    assert table.model == backend.fingerprint(backend.tuning_space().fp32())


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("mse", "op_error"), ("mse_v2", "output_error"), ("hawq_v2", "curvature")],
)
def test_scores_of_the_kind_that_a_strategy_uses_take_the_place_of_its_own(
    strategy: str, kind: str
) -> None:
    # The backend has no sensitivities: without the table the strategy cannot run.
    result = tuned(table_of(kind=kind), strategy=strategy)
    assert result.met
    assert set(result.fallback_ops) == {"a", "c"}
    first = result.study.trials[2]  # FP32, the default, and the most sensitive op in fallback.
    assert first.params["quant.op:c"] == "fp32"
    assert first.params["quant.op:a"] == STATIC.label
    lacking = f"'{strategy}' needs sensitivities, which this backend does not"
    with pytest.raises(ValueError, match=lacking):
        tuned(None, strategy=strategy)


def test_edited_scores_are_what_counts(tmp_path: Path) -> None:
    table = table_of()
    edited = tuple(replace(row, score=9.0) if row.op == "b" else row for row in table.rows)
    path = tmp_path / "edited.json"
    replace(table, rows=edited).save(path)
    first = tuned(path).study.trials[2]
    assert first.params["quant.op:b"] == "fp32"
    assert first.params["quant.op:c"] == STATIC.label


def test_scores_of_another_kind_are_not_used_and_that_is_said(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    with optuna_log.at_level(logging.WARNING):
        result = tuned(table_of().without("d"), strategy="auto")
    assert (
        "of the kind 'op_error' and are not used: the strategy 'auto' uses those of the kind "
        "'best'" in optuna_log.text
    )
    assert "d" in result.fallback_ops  # What is disabled counts all the same.
    optuna_log.clear()
    tuned(table_of(kind="best"), strategy="auto")
    assert "not used" not in optuna_log.text


def test_auto_begins_with_given_scores() -> None:
    result = tuned(table_of(kind="best"), strategy="auto")
    assert set(result.fallback_ops) == {"a", "c"}
    assert result.explanation is not None
    shares = {op: error.share for op, error in result.explanation.errors.items()}
    assert shares["c"] > shares["a"] > shares["b"]


def test_an_op_without_an_enabled_option_runs_in_fp32_in_every_trial() -> None:
    for table in (
        table_of().without("b"),
        with_rows(OptionSensitivity("b", enabled=False)),
        with_rows(OptionSensitivity("b", "", STATIC.label, enabled=False)),
    ):
        result = tuned(table, strategy="basic")
        assert result.met
        assert "quant.op:b" not in result.space.distributions()
        configs = [result.space.config_from_params(t.params) for t in result.study.trials]
        assert {config.ops["b"] for config in configs} == {FP32}


def test_a_disabled_option_is_out_of_the_space() -> None:
    backend = FakeBackend(DAMAGE, options=(STATIC, OTHER, FP32))
    rows = (
        OptionSensitivity("a", "", STATIC.label, enabled=False),
        OptionSensitivity("b", "", "fp32", enabled=False),
    )
    result = tuned(with_rows(*rows), backend=backend, strategy="basic")
    options = {tunable.name: tunable.options for tunable in result.space.tunables}
    assert options["a"] == (OTHER, FP32)
    assert options["b"] == (STATIC, OTHER)
    assert options["c"] == (STATIC, OTHER, FP32)


def test_a_table_that_disables_nothing_leaves_the_search_as_it_is() -> None:
    space = FakeBackend(DAMAGE).tuning_space()
    assert tuned(table_of()).space.description == space.description


def test_a_study_is_not_continued_with_other_options_disabled(tmp_path: Path) -> None:
    given: dict[str, Any] = {"storage": tmp_path / "j", "study_name": "s", "strategy": "basic"}
    tuned(table_of(), **given)
    with pytest.raises(ValueError, match="was started with another tuning space: op 'b'"):
        tuned(table_of().without("b"), **given)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            SensitivityTable("x", None, ()),
            r"of another model \(it has the fingerprint 'x'",
        ),
        (with_rows(OptionSensitivity("e")), "op 'e' is not there in this model"),
        (
            with_rows(OptionSensitivity("a", "", OTHER.label)),
            "op 'a' has no option 'static a=uint8/asym/per_tensor/kl",
        ),
        (
            with_rows(OptionSensitivity("a", "", "int8")),
            "op 'a' has no option 'int8' here",
        ),
        (
            with_rows(
                OptionSensitivity("a", enabled=False),
                OptionSensitivity("a", "", "fp32", enabled=False),
            ),
            "all options of op 'a' are disabled, FP32 included",
        ),
        (table_of().without(*DAMAGE), "sensitivities leave no op any quantized option"),
        (
            replace(table_of(), rows=table_of().rows[1:]),
            "there is no score for op 'c' in option 'static",
        ),
    ],
)
def test_what_does_not_fit_is_refused(table: SensitivityTable, message: str) -> None:
    backend = FakeBackend(DAMAGE)
    with pytest.raises(ValueError, match=message):
        tuned(table, backend=backend)
    assert backend.calls["calibrate"] == 0


def test_the_options_of_sensitivities_that_are_given_are_not_options() -> None:
    with pytest.raises(ValueError, match="the strategy 'hawq_v2' has no option 'probes'"):
        tuned(table_of(kind="curvature"), strategy="hawq_v2", strategy_kwargs={"probes": 3})


def test_quantize_leaves_out_what_is_disabled() -> None:
    built = optuna_quant.quantize(
        backend=FakeBackend(DAMAGE), sensitivities=table_of().without("a", "d")
    )
    assert built.config.fallback_ops == ("a", "d")
    with pytest.raises(ValueError, match="sensitivities cannot be given with a config that says"):
        optuna_quant.quantize(
            backend=FakeBackend(DAMAGE), sensitivities=table_of(), config=QuantConfig({})
        )


@pytest.mark.parametrize("kind", ["best", "op_error", "output_error"])
def test_kinds_of_the_runtime(kind: str, tmp_path: Path) -> None:
    model, path = onnx_models.convnet(), tmp_path / "t.json"
    given: dict[str, Any] = {"calibration_data": X, "op_types": ["Conv"], "threads": 1}
    table = optuna_quant.sensitivity(model, kind=kind, save=path, **given)
    assert SensitivityTable.load(path) == table
    assert table.kind == SensitivityKind(kind)
    space = optuna_quant.quantize(model, **given).backend.tuning_space(op_types=["Conv"])
    assert {(row.op, row.option) for row in table.rows} == {
        (tunable.name, option.label) for tunable in space.tunables for option in tunable.quantized
    }
    scores = [row.score for row in table.rows if row.score is not None]
    assert len(scores) == len(table.rows)
    assert max(scores) > 0
    firsts = [row.score for row in table.rows if row.option == space.tunables[0].default.label]
    assert firsts == sorted(firsts, key=lambda score: -(score or 0.0))


def test_scores_are_those_that_the_strategy_would_measure() -> None:
    model = onnx_models.convnet()
    table = optuna_quant.sensitivity(model, kind="op_error", calibration_data=X)
    backend = optuna_quant.quantize(model, calibration_data=X).backend
    space = backend.tuning_space()
    measured = backend.mse_sensitivity()(space.default(), list(space.default().ops))  # type: ignore[attr-defined]
    for op, config in space.default().ops.items():
        np.testing.assert_allclose(table.scores[op][config.label], measured[op], rtol=1e-9)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "hessian"}, "kind must be one of 'best'"),
        ({"backend": FakeBackend(DAMAGE)}, "this backend has no sensitivities of the kind 'best'"),
        ({"model": onnx_models.convnet(), "approach": "dynamic"}, "calibration_data .* is needed"),
        ({"sensitivities": table_of()}, "are what is measured here"),
    ],
)
def test_what_cannot_be_scored(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optuna_quant.sensitivity(**kwargs)


def test_no_file_that_is_read_is_written(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(onnx_models.convnet().SerializeToString())
    with pytest.raises(ValueError, match="is the model itself"):
        optuna_quant.sensitivity(model, calibration_data=X, save=model)
