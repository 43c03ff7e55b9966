"""Searches that train: hyperparameters, pruners, processes that are killed."""

from __future__ import annotations

from pathlib import Path
import traceback
from typing import Any
import warnings

from backends.torch.qat.digits_net import accuracy
from backends.torch.qat.digits_net import digits
from backends.torch.qat.digits_net import fit
from backends.torch.qat.digits_net import trained_net
from backends.torch.qat.test_training import config_of
from backends.torch.qat.test_training import qat_backend
from backends.torch.qat.training_worker import EPOCHS
import optuna
from optuna.pruners import MedianPruner
from optuna.trial import TrialState
import pytest
import torch
from torch import nn
from zygote import Zygote

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import QuantObjective
from optuna_quant import TuningInterrupted
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import Training
from optuna_quant.backends.torch import TrainingRun
from optuna_quant.backends.torch.converted.model import TorchModel
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.space.config import FP32
from optuna_quant.study.errors import TrainingError
from optuna_quant.study.trial_view import TrialView


FEW_BITS = {"Linear": {"mode": ["weight_only", "fp32"], "weight": {"bits": [4, 2]}}}


def train(model: nn.Module, run: TrainingRun) -> None:
    lr = run.trial.suggest_float("lr", 1e-5, 1e-2, log=True)
    for epoch in range(3):
        fit(model, lr, 1)
        run.report(accuracy(model), epoch)


@pytest.mark.slow  # Trains tens of models.
def test_learning_rates_are_searched_with_the_options_and_trials_are_pruned() -> None:
    backend = qat_backend(train)
    space = backend.tuning_space(op_type_dict=FEW_BITS)
    criterion = AccuracyCriterion(tolerable_loss=0.05)
    objective = QuantObjective(backend, space, accuracy, criterion)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=3),
        pruner=MedianPruner(n_startup_trials=3, n_warmup_steps=0),
    )
    study.optimize(objective, n_trials=14)

    trained = [t for t in study.trials if space.config_from_params(t.params).quantized_ops]
    assert all(1e-5 <= trial.params["lr"] <= 1e-2 for trial in trained)
    pruned = [trial for trial in trained if trial.state == TrialState.PRUNED]
    assert pruned
    assert any(len(trial.intermediate_values) < 3 for trial in pruned)
    assert all(TrialView(trial).met is None for trial in pruned)
    complete = [trial for trial in trained if trial.state == TrialState.COMPLETE]
    assert len(complete) + len(pruned) == len(trained)
    for trial in complete:
        assert len(trial.intermediate_values) == 3
        model = rebuild(trial, backend=backend, space=space)
        assert accuracy(model.native()) == trial.value


@pytest.mark.parametrize("strategy", ["basic", "surrogate", "tpe", "random"])
@pytest.mark.slow  # Trains tens of models.
def test_strategies_go_on_after_pruned_trainings(strategy: str) -> None:
    """A pruned configuration is not tried again, and is no answer."""
    backend = qat_backend(Training(train, pruner=_FirstOnes()))
    result = optuna_quant.tune(
        backend=backend,
        evaluate=accuracy,
        tolerable_loss=0.001,
        op_type_dict=FEW_BITS,
        strategy=strategy,
        max_trials=8,
        show_progress=False,
    )
    trials = result.study.trials
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    keys = [
        result.space.key_from_params(trial.params)
        for trial in trials
        if trial.state in (TrialState.PRUNED, TrialState.COMPLETE)
    ]
    assert len(keys) == len(set(keys))
    if result.trial is not None:
        assert result.trial.state == TrialState.COMPLETE
        assert accuracy(result.model().native()) == result.metric


class _FirstOnes(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: Any) -> bool:
        return trial.number < 4


def test_a_mistake_in_the_training_ends_the_search_with_its_line() -> None:
    calls: list[None] = []

    def mistaken(model: nn.Module) -> None:
        calls.append(None)
        model(torch.zeros(2, 3))  # The net takes 64 features.

    backend = qat_backend(mistaken)
    with pytest.raises(
        TrainingError, match=r"^train, .* RuntimeError: .* of test_search.py\)"
    ) as e:
        optuna_quant.tune(
            backend=backend, evaluate=accuracy, objective="size", show_progress=False
        )
    assert len(calls) == 1
    # What Python shows begins with the user's lines.
    cause = e.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert traceback.extract_tb(cause.__traceback__)[0].name == "mistaken"


@pytest.mark.parametrize(
    "error",
    [FloatingPointError("x"), RuntimeError("Function 'MulBackward0' returned nan values in it")],
)
def test_a_first_training_that_says_it_diverged_is_a_failed_trial(error: Exception) -> None:
    def failing(model: nn.Module) -> None:
        raise error

    backend = qat_backend(failing)
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(space.params_of(space.default()))
    study.optimize(QuantObjective(backend, space, accuracy, AccuracyCriterion()), n_trials=1)
    assert study.trials[0].state == TrialState.FAIL
    assert "Not trained" in str(TrialView(study.trials[0]).failure)


def test_a_training_that_fails_after_others_is_a_failed_trial() -> None:
    calls: list[None] = []

    def failing(model: nn.Module) -> None:
        calls.append(None)
        if len(calls) > 1:
            raise RuntimeError("out of patience")

    backend = qat_backend(failing)
    space = backend.tuning_space()
    objective = QuantObjective(backend, space, accuracy, AccuracyCriterion())
    study = optuna.create_study(direction="maximize")
    op = next(iter(space.default().ops))
    for config in (space.default(), space.default().with_ops({op: FP32})):
        study.enqueue_trial(space.params_of(config))
    study.optimize(objective, n_trials=2)
    assert study.trials[0].state == TrialState.COMPLETE
    view = TrialView(study.trials[1])
    assert view.state == TrialState.FAIL
    assert view.failure is not None
    assert "Not trained" in view.failure and "out of patience" in view.failure
    assert " of test_search.py)" in view.failure  # The line of the user's function.


def test_a_training_that_diverges_is_a_failed_trial_and_the_study_goes_on() -> None:
    trained: list[nn.Module] = []

    def diverging(model: nn.Module) -> None:
        trained.append(model)
        if len(trained) == 1:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name.startswith("activation_ranges."):
                        parameter.fill_(1e6)

    backend = qat_backend(Training(diverging, learn_ranges=True))
    space = backend.tuning_space()
    objective = QuantObjective(backend, space, accuracy, AccuracyCriterion())
    study = optuna.create_study(direction="maximize")
    for _ in range(2):
        study.enqueue_trial(space.params_of(space.default()))
    study.optimize(objective, n_trials=2)
    first, second = map(TrialView, study.trials)
    assert first.state == TrialState.FAIL
    assert first.failure is not None
    assert "Not trained" in first.failure and "its scale became inf" in first.failure
    # What has diverged was not kept for the others.
    assert second.state == TrialState.COMPLETE
    assert len(trained) == 2


def test_an_objective_without_a_training_says_so_at_once() -> None:
    backend = qat_backend(None)
    with pytest.raises(ValueError, match="give TorchBackend train="):
        QuantObjective(backend, backend.tuning_space(), accuracy, AccuracyCriterion())


def test_an_objective_of_the_user() -> None:
    x, *_ = digits()
    backend = TorchBackend(trained_net(2), x[:2], calibration_data=x[:100].numpy(), approach="qat")
    space = backend.tuning_space(op_type_dict=FEW_BITS)

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        module = backend.prepare(config)
        fit(module, trial.suggest_float("lr", 1e-4, 1e-2, log=True), 1)
        model = backend.finished(config, module)
        assert model.fingerprint == backend.finished(config, module).fingerprint
        return accuracy(model.native())

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=3)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.slow
def test_a_killed_training_goes_on(zygote: Zygote, tmp_path: Path) -> None:
    """The answer is the one that it would have been without the kill."""
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    killed.mkdir()
    alone.mkdir()
    work = "backends.torch.qat.training_worker:work"
    status, errors = zygote.wait(zygote.start(work, folder=str(killed), seed=0, kill_after=1))
    assert status == -9, errors
    assert not (killed / "answer").exists()
    zygote.join(zygote.start(work, folder=str(killed), seed=1))
    lines = (killed / "epochs").read_text().split("\n")[:-1]
    epochs = [int(line.split()[0]) for line in lines]
    # At once after the last checkpoint, with the learning rate of the killed trial.
    assert epochs == [0, 1, *range(2, EPOCHS)]
    assert len({line.split()[1] for line in lines}) == 1
    study = optuna.load_study(
        study_name="digits",
        storage=optuna_quant.storages.open_storage(str(killed / "study.journal")),
    )
    _, failed, complete = study.trials
    assert failed.state == TrialState.FAIL
    assert TrialView(complete).resumed == failed.number
    # The checkpoints are gone, and what was trained is kept.
    assert not list((killed / "artifacts").glob("checkpoint-*"))

    zygote.join(zygote.start(work, folder=str(alone), seed=0))
    assert (alone / "answer").read_text() == (killed / "answer").read_text()


def test_without_an_artifact_store_a_checkpoint_warns(tmp_path: Path) -> None:
    def saving(model: nn.Module, run: TrainingRun) -> None:
        assert run.resume() is None
        run.save({"step": 1}, 0)

    backend = qat_backend(saving)
    space = backend.tuning_space()
    objective = QuantObjective(backend, space, accuracy, AccuracyCriterion())
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(space.params_of(space.default()))
    with pytest.warns(UserWarning, match="no artifact_store"):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.COMPLETE


def test_a_state_that_cannot_be_read_again_is_refused() -> None:
    def saving(model: nn.Module, run: TrainingRun) -> None:
        run.save({"optimizer": object()}, 0)

    backend = qat_backend(saving)
    with pytest.raises(TypeError, match="tensors, numbers and texts"):
        backend.quantize(config_of(backend))


def test_an_interrupted_training_goes_on_in_the_next_trial(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def saving(model: nn.Module, run: TrainingRun) -> None:
        lr = run.trial.suggest_float("lr", 1e-4, 1e-2)
        checkpoint = run.resume()
        first = 0 if checkpoint is None else checkpoint.step + 1
        for epoch in range(first, 3):
            seen.append((epoch, lr))
            run.save({"epoch": epoch}, epoch)
            if epoch == 1 and checkpoint is None:
                raise KeyboardInterrupt

    backend = qat_backend(saving)
    space = backend.tuning_space()
    store = optuna.artifacts.FileSystemArtifactStore(tmp_path)
    objective = QuantObjective(backend, space, accuracy, AccuracyCriterion(), artifact_store=store)
    study = optuna.create_study(direction="maximize")
    for _ in range(2):
        study.enqueue_trial(space.params_of(space.default()))
    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=1)
    first, second = study.trials
    assert TrialView(first).is_interrupted
    assert TrialView(second).resumed == 0
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert {lr for _, lr in seen} == {second.params["lr"]}
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_trial_is_exported_with_what_was_trained(tmp_path: Path) -> None:
    calls: list[None] = []

    def counting(model: nn.Module) -> None:
        calls.append(None)
        fit(model, 0.001, 1)

    storage = str(tmp_path / "study.journal")
    result = optuna_quant.tune(
        backend=qat_backend(counting),
        evaluate=accuracy,
        tolerable_loss=0.5,
        objective="size",
        storage=storage,
        study_name="digits",
        max_trials=1,
        show_progress=False,
    )
    before = len(calls)
    exported = optuna_quant.export(
        backend=qat_backend(counting), storage=storage, study_name="digits", trial="best"
    )
    assert exported.model().fingerprint == result.model().fingerprint
    assert len(calls) == before


def test_an_interrupted_training_ends_a_search_with_what_is_found() -> None:
    def interrupted(model: nn.Module) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TuningInterrupted) as error:
        optuna_quant.tune(
            backend=qat_backend(interrupted),
            evaluate=accuracy,
            objective="size",
            show_progress=False,
        )
    result = error.value.result
    assert result is not None and result.stopped_because == "interrupted"
    trial = result.study.trials[-1]
    assert trial.state == TrialState.FAIL
    assert TrialView(trial).is_interrupted


def test_an_interrupted_conversion_ends_a_search_with_what_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: TorchModel) -> None:
        raise KeyboardInterrupt

    x, *_ = digits()
    backend = TorchBackend(trained_net(2), x[:2], calibration_data=x[:100].numpy())
    with monkeypatch.context() as patch:
        patch.setattr(TorchModel, "program", property(interrupted))
        with pytest.raises(TuningInterrupted) as error:
            optuna_quant.tune(
                backend=backend,
                evaluate=accuracy,
                tolerable_loss=0.9,
                objective="size",
                show_progress=False,
            )
    result = error.value.result
    assert result is not None and result.baseline == accuracy(trained_net(2))
