"""Searches in which every candidate fails in the same way, or nearly every one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
from optuna.trial import TrialState
import pytest
from samplers.parallel_worker import Log
from spaces import STATIC
from spaces import STATIC_TENSOR
from zygote import Zygote

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import StopReason
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.space import TuningSpace
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.repeated_failures import single_ops
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.strategies import needs_sensitivity


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
OPS = 12


class Failing(CountingEvaluation):
    """Fails for the models of which ``fails`` says so."""

    def __init__(
        self, fails: Callable[[FakeModel], bool], reason: Callable[[FakeModel], str] | None = None
    ) -> None:
        super().__init__()
        self._fails = fails
        self._reason = reason or (lambda model: "out of memory")

    def __call__(self, model: FakeModel) -> float:
        value = super().__call__(model)
        if self._fails(model):
            raise RuntimeError(self._reason(model))
        return value


def is_quantized(model: FakeModel) -> bool:
    return bool(model.config.quantized_ops)


def tune_fake(evaluate: Callable[[FakeModel], float], **kwargs: object) -> TuningResult:
    given: dict[str, object] = {
        "backend": FakeBackend(OPS),
        "tuning_criterion": TuningCriterion(strategy="basic"),
    }
    return tune(evaluate=evaluate, accuracy_criterion=TOLERANT, **(given | kwargs))  # type: ignore[arg-type]


# Every one fails.


@pytest.mark.parametrize("name", [name for name in strategies() if not needs_sensitivity(name)])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_search_stops_after_a_few_with_the_reason_once(name: str, n_jobs: int) -> None:
    evaluate = Failing(is_quantized, lambda model: f"out of memory: {len(evaluate.seen)} bytes")
    tuning = TuningCriterion(strategy=name, timeout=None, max_trials=None)
    # Two ways to quantize an op: some strategies try no fallback.
    backend = FakeBackend(OPS, options=(STATIC, STATIC_TENSOR, FP32))
    result = tune_fake(evaluate, backend=backend, tuning_criterion=tuning, n_jobs=n_jobs)
    assert result.stopped_because == StopReason.FAILING == "failing"
    assert not result.met
    assert result.config is None
    # Of three configurations, each three times at most, and two of single ops; and those at work.
    assert len(evaluate.seen) <= 1 + 9 + 2 + n_jobs
    assert result.message.startswith("Every candidate failed in the same way (")
    assert "Not evaluated: RuntimeError: out of memory: " in result.message
    assert result.message.count("out of memory") == 1


def test_enqueued_nonsense_does_not_count(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    study = optuna.create_study(
        storage=open_storage(storage), study_name="mine", direction="maximize"
    )
    study.enqueue_trial({"quant.op:op0": "nonsense"})
    evaluate = Failing(is_quantized)
    result = tune_fake(evaluate, storage=storage, study_name="mine")
    assert result.study.trials[0].user_attrs["failure"].startswith("Enqueued with ")
    assert result.stopped_because == "failing"
    assert len(evaluate.seen) <= 1 + 9 + 2 + 1


def test_models_that_cannot_be_built_are_a_failure_too() -> None:
    backend = FakeBackend(OPS)

    def build(config: object) -> None:
        if getattr(config, "quantized_ops", ()):
            raise RuntimeError("no kernel")

    backend.before_build = build
    result = tune_fake(CountingEvaluation(), backend=backend)
    assert result.stopped_because == "failing"
    assert "The reason: Not built: RuntimeError: no kernel" in result.message
    # Each is built once: two of the strategy's, and two of single ops.
    assert len([t for t in result.study.trials if t.state == TrialState.FAIL]) == 4


def test_exit_policy_alone_stops_a_study() -> None:
    backend = FakeBackend(OPS)
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    objective = QuantObjective(backend, space, Failing(is_quantized), TOLERANT)
    study.optimize(objective, callbacks=[ExitPolicy(TOLERANT, timeout=None)])
    assert study.user_attrs[record.STOPPED_BECAUSE]["reason"] == "failing"


def work(storage: str, log: str) -> None:
    """What a worker process does."""
    lines = Log(log)

    def evaluate(model: FakeModel) -> float:
        lines.add("evaluation")
        if is_quantized(model):
            raise RuntimeError("out of memory")
        return model.accuracy

    result = tune_fake(evaluate, storage=storage)
    lines.add("result", reason=result.stopped_because)


def test_processes_that_share_the_search_all_stop(zygote: Zygote, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    pids = [
        zygote.start(
            "study.test_repeated_failures:work",
            storage=str(tmp_path / "journal"),
            log=str(log.path),
        )
        for _ in range(3)
    ]
    assert zygote.join(*pids) == [0, 0, 0]
    assert [line["reason"] for line in log.read("result")] == 3 * ["failing"]
    assert len(log.read("evaluation")) <= 1 + 9 + 2 + 3 + 3


# Not every one.


@pytest.mark.parametrize("name", ["basic", "conservative", "auto"])
@pytest.mark.parametrize("bad", ["op0", "op5", f"op{OPS - 1}"])
def test_op_that_cannot_be_run_quantized_is_found(name: str, bad: str) -> None:
    evaluate = Failing(lambda model: bad in model.config.quantized_ops)
    tuning = TuningCriterion(strategy=name, max_trials=None)
    result = tune_fake(evaluate, tuning_criterion=tuning)
    assert result.met
    assert result.fallback_ops == (bad,)


def test_op_type_that_cannot_be_run_quantized_is_found() -> None:
    class TwoTypes(FakeBackend):
        def capability(self) -> Capability:
            options = (STATIC, FP32)
            types = dict.fromkeys(self.damage, "Conv") | {"op3": "Gemm"}
            return Capability(tuple(OpCapability(n, t, options) for n, t in types.items()))

    convolutions = {f"op{i}" for i in range(OPS)} - {"op3"}
    evaluate = Failing(lambda model: bool(convolutions & set(model.config.quantized_ops)))
    tuning = TuningCriterion(strategy="conservative", max_trials=None)
    result = tune_fake(evaluate, backend=TwoTypes(OPS), tuning_criterion=tuning)
    assert result.met
    assert result.config is not None
    assert result.config.quantized_ops == ("op3",)


def test_model_that_only_asks_whether_all_fail_is_no_answer() -> None:
    # With three ops or more it fails: the best is two, and one was tried before.
    evaluate = Failing(lambda model: len(model.config.quantized_ops) > 2)
    tuning = TuningCriterion(strategy="basic", max_trials=None)
    result = tune_fake(evaluate, backend=FakeBackend(6), tuning_criterion=tuning)
    assert result.met
    assert len(result.fallback_ops) == 4
    assert any(record.IS_PROBE in trial.user_attrs for trial in result.study.trials)


def test_different_reasons_go_on() -> None:
    words = ["memory", "kernel", "shape", "file"]

    def reason(model: FakeModel) -> str:
        return f"no {words[len(evaluate.seen) % 4]}"

    evaluate = Failing(is_quantized, reason)
    result = tune_fake(evaluate, tuning_criterion=TuningCriterion(strategy="basic", max_trials=30))
    assert result.stopped_because == "max_trials"


@pytest.mark.parametrize("n", [2, 3])
def test_small_space_comes_to_its_own_end(n: int) -> None:
    result = tune_fake(Failing(is_quantized), backend=FakeBackend(n))
    assert result.stopped_because in ("failing", "exhausted")
    assert "out of memory" in result.message


# Once more.


def test_same_search_goes_on_when_the_cause_is_mended(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    seen = []
    for _ in range(2):
        failing = Failing(is_quantized)
        result = tune_fake(failing, storage=storage)
        assert result.stopped_because == "failing"
        seen.append(sum(map(is_quantized, failing.seen)))
    assert seen[0] == seen[1] > 0
    mended = CountingEvaluation()
    result = tune_fake(mended, storage=storage)
    # What had failed is tried again: as without the failures, the default is the answer.
    assert result.met
    assert result.fallback_ops == ()
    assert result.abandoned == ()
    # The function is another one, so it is held against the metric of FP32.
    assert mended.fp32_count == 1
    assert len(mended.seen) == 3


def test_failures_of_a_search_that_found_something_still_count(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    evaluate = Failing(lambda model: "op5" in model.config.quantized_ops)
    tuning = TuningCriterion(strategy="basic", max_trials=None)
    first = tune_fake(evaluate, storage=storage, tuning_criterion=tuning)
    assert first.met
    again = Failing(lambda model: "op5" in model.config.quantized_ops)
    result = tune_fake(again, storage=storage, tuning_criterion=tuning)
    assert result.fallback_ops == first.fallback_ops
    assert again.seen == []


# What is tried.


def space_of(types: str) -> TuningSpace:
    ops = tuple(
        OpCapability(f"{name}{i}", name, (STATIC, FP32)) for i, name in enumerate(types.split())
    )
    return TuningSpace.from_capability(Capability(ops))


@pytest.mark.parametrize(
    ("types", "ops"),
    [
        ("A", ["A0"]),
        ("A A A", ["A0", "A2"]),
        ("B A A", ["A1", "B0"]),
        ("A B C D E F G F G F G", ["F5", "G6", "A0", "B1", "C2"]),
    ],
)
def test_one_op_of_each_type_is_tried(types: str, ops: list[str]) -> None:
    configs = single_ops(space_of(types))
    assert [config.quantized_ops for config in configs] == [(op,) for op in ops]


def test_op_without_a_fallback_stays_as_it_is() -> None:
    space = TuningSpace.from_capability(
        Capability((OpCapability("a", "A", (STATIC,)), OpCapability("b", "B", (STATIC, FP32))))
    )
    (config,) = single_ops(space)
    assert config.quantized_ops == ("a", "b")
    assert config in space
