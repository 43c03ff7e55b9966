"""Exporting the model of a trial: the same model, and refusals of all that would be another."""

from __future__ import annotations

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
from optuna_quant import BuiltModel
from optuna_quant import TuningResult
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs import CostTable
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.second_evaluation import _digest


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.0, "c": 0.3}


def evaluate(model: FakeModel) -> float:
    return model.accuracy


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.fixture(scope="module")
def searched_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a search; not to be written to."""
    journal = tmp_path_factory.mktemp("searched") / "study.journal"
    searched(journal)
    return journal


def searched(journal: Path, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "evaluate": evaluate,
        "accuracy_criterion": TOLERANT,
        "strategy": "basic",
    }
    return optuna_quant.tune(
        backend=FakeBackend(DAMAGE), **given | {"storage": journal, "study_name": "s"} | kwargs
    )


def exported(journal: Path, **kwargs: Any) -> BuiltModel:
    given: dict[str, Any] = {"backend": FakeBackend(DAMAGE), "storage": journal}
    return optuna_quant.export(**given | kwargs)


def test_every_trial_gives_the_model_that_it_has_evaluated(journal: Path) -> None:
    result = searched(journal)
    written = journal.read_bytes()
    trials = result.study.get_trials(deepcopy=False)
    assert len(trials) > 2
    for trial in trials:
        built = exported(journal, trial=trial.number)
        assert built.model().fingerprint == TrialView(trial).fingerprint
        assert evaluate(built.model()) == trial.values[0]  # type: ignore[arg-type]
        assert built.trial is not None
        assert built.trial.number == trial.number
        assert f"Trial {trial.number} of the study 's': metric " in str(built)
    assert journal.read_bytes() == written  # It is only read.


def test_best_is_the_answer_and_is_written(journal: Path, tmp_path: Path) -> None:
    result = searched(journal)
    result.save(tmp_path / "searched.json")
    built = exported(journal, save=tmp_path / "exported.json")
    assert built.config == result.config
    assert (tmp_path / "exported.json").read_bytes() == (tmp_path / "searched.json").read_bytes()
    assert str(built).startswith("Trial ")
    assert "metric 0.9, FP32 0.9, loss 0: met (at most 0.1 absolute loss" in str(built)
    assert "in fallback: a, c" in str(built)


def test_options_of_the_space_need_not_be_repeated(tmp_path: Path) -> None:
    journal = tmp_path / "s.journal"
    x = onnx_models.samples(8, 2, 8, 8)
    model = onnx_models.convnet()
    given: dict[str, Any] = {"calibration_data": x, "threads": 1}
    result = optuna_quant.tune(
        model,
        **given,
        evaluate=lambda session: float(np.mean(session.run(None, {"x": x})[0])) ** 2 + 1,
        op_type_dict={"Conv": {"weight": {"granularity": ["per_tensor"]}}},
        op_types=["Conv"],
        storage=journal,
        tolerable_loss=0.5,
        objective="size",
        strategy="random",
        measure_gain=False,
        verify=False,
        max_trials=3,
    )
    assert result.trial is not None
    built = optuna_quant.export(
        model, storage=journal, trial=result.trial.number, save=tmp_path / "out.onnx", **given
    )
    assert built.config == result.config
    assert list(built.config.ops) == list(result.space.default().ops)  # In model order.
    result.save(tmp_path / "searched.onnx", closest=True)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "searched.onnx").read_bytes()
    backend = OnnxRuntimeBackend(model, calibration_data=x)
    assert built.model().fingerprint == backend.fingerprint(built.config)
    for other, what in (
        ({"calibration_data": x[:4]}, "other calibration data"),
        ({"approach": "auto"}, r"other options \(it has approach='static'; .*'auto'"),
    ):
        with pytest.raises(ValueError, match=f"was started with {what}"):
            optuna_quant.export(model, storage=journal, trial=1, **given | other)
    with pytest.raises(ValueError, match="was started with another model"):
        optuna_quant.export(onnx_models.convnet(seed=1), storage=journal, **given)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"trial": 99}, "there is no trial 99; the study 's' has"),
        ({"trial": -1}, "must be 'best' or the number of a trial, but got -1"),
        ({"trial": "first"}, "but got 'first'"),
        ({"trial": True}, "but got True"),
        ({"study_name": "S"}, "no study 'S' in the storage. Did you mean 's'"),
        ({"storage": None}, "name the storage"),
        ({"op_types": "all"}, "op_types cannot be given with a trial, which says the option"),
        ({"backend": FakeBackend(DAMAGE, name="other")}, "was started with another model"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    searched_once: Path, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        exported(searched_once, **kwargs)


def test_a_storage_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for address in (tmp_path / "no.journal", f"sqlite:///{tmp_path}/no.db"):
        with pytest.raises(ValueError, match="storage: there is no storage '.*no\\."):
            exported(address)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_no_file_that_is_read_is_written(searched_once: Path) -> None:
    before = searched_once.read_bytes()
    with pytest.raises(ValueError, match="is the storage itself"):
        exported(searched_once, save=searched_once)
    assert searched_once.read_bytes() == before


def test_without_a_name_it_is_the_study_of_the_model(journal: Path) -> None:
    searched(journal)
    optuna.create_study(storage=open_storage(journal), study_name="a stranger's")
    assert exported(journal).trial is not None
    with pytest.raises(ValueError, match="does not say which model it is about"):
        exported(journal, study_name="a stranger's")
    searched(journal, study_name="t")
    with pytest.raises(ValueError, match="has 2 studies of this model: 's', 't'. Name the one"):
        exported(journal)
    with pytest.raises(ValueError, match="it has no study of this model. It has the studies"):
        exported(journal, backend=FakeBackend(DAMAGE, name="other"))


def test_a_study_of_an_objective_of_ones_own_is_told_another_way(journal: Path) -> None:
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    study = optuna.create_study(
        storage=open_storage(journal),
        direction="maximize",
        sampler=BasicQuantSampler(space, criterion=TOLERANT),
    )
    study.optimize(lambda trial: backend.quantize(space.suggest(trial)).accuracy, n_trials=3)
    with pytest.raises(ValueError, match="an objective of your own .* optuna_quant.quantize") as e:
        exported(journal, trial=2)
    assert "config=space.config_from_params(study.trials[N].params)" in str(e.value)
    config = space.config_from_params(study.trials[2].params)
    assert optuna_quant.quantize(backend=backend, config=config).config == config


def test_best_needs_a_model_that_meets_the_criterion(journal: Path) -> None:
    strict = AccuracyCriterion(criterion="absolute", tolerable_loss=0.0)
    damage = dict.fromkeys("ab", 0.2)
    optuna_quant.tune(
        backend=FakeBackend(damage),
        evaluate=evaluate,
        accuracy_criterion=strict,
        storage=journal,
        strategy="exhaustive",
    )
    with pytest.raises(ValueError, match=r"no model of .* meets its criterion .*The closest is"):
        exported(journal, backend=FakeBackend(damage))


def test_an_answer_that_did_not_hold_is_not_the_best(journal: Path) -> None:
    result = searched(journal)
    assert result.trial is not None
    digest = _digest(result.trial, result.metric, result.baseline)
    write_bytes(
        result.study, f"{record.SECOND_EVALUATION}:{digest}", b'{"failed": "x", "evaluated": 0}'
    )
    number = result.trial.number
    with pytest.raises(ValueError, match=f"trial {number}, met the criterion, but not when"):
        exported(journal)
    assert exported(journal, trial=number).config == result.config


def test_trials_that_have_not_ended_or_have_no_configuration(journal: Path) -> None:
    study = searched(journal).study
    running = study.ask()
    with pytest.raises(ValueError, match=f"trial {running.number} .* is still running"):
        exported(journal, trial=running.number)
    study.tell(running, state=optuna.trial.TrialState.FAIL)
    with pytest.raises(ValueError, match=r"has no configuration of its tuning space: it failed"):
        exported(journal, trial=running.number)
    study.enqueue_trial({})
    with pytest.raises(ValueError, match="is waiting to be run"):
        exported(journal, trial=running.number + 1)


def test_weighted_objectives_are_judged_by_the_record(journal: Path) -> None:
    space = FakeBackend(DAMAGE).tuning_space()
    sizes = {op: {FP32.label: 9.0 - i, STATIC.label: 1.0} for i, op in enumerate(DAMAGE)}
    costs = CostTable("size", "bytes", sizes, (), 100.0)
    costs.check(space)
    result = searched(
        journal, objective={"size": 1.0, "ops": 1.0}, costs=costs, timeout=None, max_trials=8
    )
    assert result.objective == "size=1,ops=1"
    assert exported(journal).config == result.config
