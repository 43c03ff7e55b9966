"""tune() and the command begin from an earlier study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import threading
from typing import Any

from fake_backend import FakeBackend
import optuna
import pytest

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.cli.parser import main
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.samplers._models.prior import kept_prior
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.earlier_study import parse_from_study


DAMAGE = dict.fromkeys((f"op{i}" for i in range(10)), 0.0005) | {"op3": 0.02, "op7": 0.03}


class Backend(FakeBackend):
    """A fake backend that knows roughly what matters, and what its models depend on."""

    def __init__(self, damage: Mapping[str, float] = DAMAGE, **kwargs: Any) -> None:
        name = kwargs.pop("name", str(round(sum(damage.values()), 9)))
        super().__init__(damage, name=name, **kwargs)
        self.scored = 0

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        return {SensitivityKind.BEST: SensitivityFactory(self._sensitivity)}

    def _sensitivity(self, *, outputs: Any) -> Any:
        def score(config: Any, ops: Any) -> dict[str, float]:
            self.scored += 1
            factors = (1.0, 0.3, 2.5, 0.7)
            return {op: self.damage[op] * factors[i % 4] for i, op in enumerate(ops)}

        return score

    def signature(self) -> dict[str, str]:
        return {"options": "none"}


def accuracy(model: Any) -> float:
    return float(model.accuracy)


def other_metric(model: Any) -> float:
    return 10 * float(model.accuracy)


def tune(backend: FakeBackend | None = None, **kwargs: Any) -> TuningResult:
    given = {"evaluate": accuracy, "verify": False} | kwargs
    return optuna_quant.tune(backend=Backend() if backend is None else backend, **given)


def stages(result: TuningResult) -> list[str]:
    claims = [TrialView(trial).claim for trial in result.study.trials]
    return [claim.stage for claim in claims if claim is not None]


def test_unchanged_model_takes_two_evaluations(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    cold = tune(storage=journal, study_name="cold")
    assert cold.met
    assert len(cold.study.trials) > 2
    only = tmp_path / "one.journal"
    optuna.copy_study(
        from_study_name="cold",
        from_storage=cold.study._storage,
        to_storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(only))
        ),
    )
    ways: list[Any] = [cold, cold.study, "cold", (journal, "cold"), (str(only), None)]
    for number, way in enumerate(ways):
        backend = Backend()
        warm = tune(backend, storage=journal, study_name=f"warm{number}", from_study=way)
        assert warm.met
        assert stages(warm) == ["baseline", "earlier answer"]
        assert warm.config == cold.config
        assert not backend.scored
        trials = len(cold.study.trials)
        line = f"started from study 'cold': 10 of 10 ops in common, {trials} trials"
        assert line in str(warm).splitlines()


def test_fine_tuned_model_begins_with_the_earlier_answer() -> None:
    cold = tune()
    backend = Backend({op: 1.05 * lost for op, lost in DAMAGE.items()})
    warm = tune(backend, from_study=cold)
    assert stages(warm)[:2] == ["baseline", "earlier answer"]
    assert backend.scored  # It costs little, and the model is another one.
    fresh = tune(Backend(backend.damage))
    assert len(warm.fallback_ops) <= len(fresh.fallback_ops)
    assert len(warm.study.trials) < len(fresh.study.trials)


def test_same_model_with_another_tolerance() -> None:
    cold = tune()
    backend = Backend()
    strict = AccuracyCriterion(tolerable_loss=0.003)
    warm = tune(backend, from_study=cold, accuracy_criterion=strict)
    fresh = tune(accuracy_criterion=strict)
    assert warm.met
    assert not backend.scored
    assert "cheapest to start with" not in stages(warm)
    assert len(warm.fallback_ops) <= len(fresh.fallback_ops)
    assert len(warm.study.trials) <= len(fresh.study.trials)


def test_other_metric_teaches_about_ops_alone() -> None:
    cold = tune()
    warm = tune(evaluate=other_metric, from_study=cold)
    prior = kept_prior(warm.study)
    assert prior is not None
    assert prior.same_model
    assert not prior.same_metric
    assert warm.met


def test_goes_on_when_the_earlier_study_is_gone(tmp_path: Path) -> None:
    journal = str(tmp_path / "study.journal")
    tune(storage=journal, study_name="cold")
    harder = {op: 2.6 * lost for op, lost in DAMAGE.items()}
    limited = TuningCriterion(max_trials=1)
    first = tune(
        Backend(harder), storage=journal, study_name="warm", from_study="cold",
        tuning_criterion=limited,
    )  # fmt: skip
    assert len(first.study.trials) == 2
    whole = tune(Backend(harder), storage=journal, study_name="whole", from_study="cold")
    assert len(whole.study.trials) > 3
    optuna.delete_study(study_name="cold", storage=first.study._storage)
    # With the same arguments, and without.
    tune(
        Backend(harder), storage=journal, study_name="warm", from_study="cold",
        tuning_criterion=TuningCriterion(max_trials=2),
    )  # fmt: skip
    resumed = tune(Backend(harder), storage=journal, study_name="warm")
    assert [t.params for t in resumed.study.trials] == [t.params for t in whole.study.trials]
    assert "started from study 'cold'" in str(resumed)


def test_two_workers_search_from_the_same_prior(tmp_path: Path) -> None:
    journal = str(tmp_path / "study.journal")
    tune(storage=journal, study_name="cold")
    harder = {op: 2.6 * lost for op, lost in DAMAGE.items()}
    results: list[TuningResult] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(
                tune(Backend(harder), storage=journal, study_name="warm", from_study="cold")
            )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    first, second = results
    assert first.met
    assert second.met
    trials = first.study.trials
    assert len({str(sorted(t.params.items())) for t in trials}) == len(trials)
    assert first.config == second.config
    alone = tune(Backend(harder), storage=journal, study_name="alone", from_study="cold")
    assert len(first.fallback_ops) <= len(alone.fallback_ops) + 1


class CostingBackend(Backend):
    """Knows costs, and the conditions under which it measures them."""

    def __init__(self, machine: str, damage: Mapping[str, float] = DAMAGE) -> None:
        super().__init__(damage)
        self.machine = machine
        self.measured = 0

    def cost_conditions(self) -> dict[str, str]:
        return {"machine": self.machine}

    def costs(self, space: Any) -> Costs:
        self.measured += 1
        latency, size = {}, {}
        for tunable in space.tunables:
            for i, op in enumerate(tunable.ops):
                saved = 100 + (op == "op0") + i
                labels = {o.label: float(not o.is_quantized) for o in tunable.options}
                latency[op] = {label: 1 + value for label, value in labels.items()}
                size[op] = {label: saved * value for label, value in labels.items()}
        fixed = 4000 - sum(max(labels.values()) for labels in size.values())
        tables = (
            CostTable("latency", "s", latency),
            CostTable("size", "B", size, (), fixed),
        )
        return Costs({table.measure: table for table in tables}, self.cost_conditions())


@pytest.mark.parametrize(("machine", "measured"), [("a", 0), ("b", 1)])
def test_costs_are_taken_over_from_the_same_kind_of_machine(machine: str, measured: int) -> None:
    first = CostingBackend("a")
    cold = tune(first)
    assert first.measured == 1
    assert cold.objective == "latency"
    for factor in (1.0, 1.05):
        backend = CostingBackend(machine, {op: factor * lost for op, lost in DAMAGE.items()})
        warm = tune(backend, from_study=cold)
        assert backend.measured == measured
        assert warm.objective == "latency"
        assert warm.cost == cold.cost


# Errors.


def test_study_that_is_not_there(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    tune(storage=journal, study_name="first")
    tune(storage=journal, study_name="second")
    with pytest.raises(ValueError, match="no study 'frist' in the storage. Did you mean 'first'"):
        tune(storage=journal, study_name="warm", from_study="frist")
    with pytest.raises(ValueError, match="the storage has 3 studies: 'first', 'second'"):
        tune(from_study=(journal, None))
    with pytest.raises(ValueError, match="there is no storage 'nowhere.journal'"):
        tune(from_study=("nowhere.journal", "x"))
    assert not Path("nowhere.journal").exists()
    with pytest.raises(ValueError, match="'warm' cannot start from itself"):
        tune(storage=journal, study_name="warm", from_study="warm")
    with pytest.raises(ValueError, match="the storage has no study"):
        optuna_quant.storages.open.open_storage(tmp_path / "empty.journal")
        tune(from_study=(tmp_path / "empty.journal", None))


@pytest.mark.parametrize("value", [3, "", ("a",), (None, "name"), ("a", 3), object()])
def test_something_that_is_no_study(value: Any) -> None:
    backend = Backend()
    with pytest.raises(TypeError, match="from_study must be a study, a TuningResult, the name"):
        tune(backend, from_study=value)
    assert not backend.built


def test_model_with_no_op_in_common() -> None:
    cold = tune()
    backend = Backend({f"layer{i}": 0.0 for i in range(5)})
    with pytest.raises(ValueError, match=r"no op is in common \(it has 'op0', .*'layer0'"):
        tune(backend, from_study=cold)
    assert not [config for config in backend.built if config.quantized_ops]


def test_strategy_that_takes_nothing_over() -> None:
    cold = tune()
    for strategy, kwargs in (("basic", None), ("auto", {"compat": "inc2"})):
        tuning = TuningCriterion(strategy=strategy, strategy_kwargs=kwargs)
        with pytest.raises(ValueError, match=r"does not learn from an earlier study.*auto, surr"):
            tune(from_study=cold, tuning_criterion=tuning)


def test_study_that_has_started_already(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    tune(storage=journal, study_name="cold")
    tune(storage=journal, study_name="other")
    with pytest.raises(ValueError, match="'other' has trials already and was not started from"):
        tune(storage=journal, study_name="other", from_study="cold")
    tune(storage=journal, study_name="warm", from_study="cold")
    with pytest.raises(ValueError, match="was started from the study 'cold', not from 'other'"):
        tune(storage=journal, study_name="warm", from_study="other")


def test_form_on_the_command_line() -> None:
    assert parse_from_study("name") == "name"
    assert parse_from_study("name@old.journal") == ("old.journal", "name")
    assert parse_from_study("@old.journal") == ("old.journal", None)
    address = "postgresql://user:word@host/base"
    assert parse_from_study(f"name@{address}") == (address, "name")
    for text in ("", "name@", "@"):
        with pytest.raises(ValueError, match="--from-study must be NAME"):
            parse_from_study(text)


def test_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    import numpy as np
    import onnx
    import onnx_models

    monkeypatch.chdir(tmp_path)
    onnx.save(onnx_models.convnet(), "model.onnx")
    x = onnx_models.samples(80, 2, 8, 8)
    np.savez("data.npz", x=x)
    begin = ["tune", "model.onnx", "--calibration", "data.npz", "--data", "data.npz"]
    begin += [
        "--metric",
        "agreement",
        "--objective",
        "ops",
        "--no-gain",
        "--tolerable-loss",
        "0.2",
    ]
    assert main([*begin, "--study-name", "cold"]) == 0
    capsys.readouterr()
    warm = [*begin, "--output", "warm.onnx"]
    assert main([*warm, "--from-study", "cold"]) == 2
    assert "there is no study 'cold' in the storage" in capsys.readouterr().err
    where = "model.quantized.optuna_quant.journal"
    assert main([*warm, "--from-study", f"@{where}"]) == 0
    assert "started from study 'cold': 3 of 3 ops in common, 2 trials" in capsys.readouterr().out
