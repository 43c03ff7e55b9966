"""An answer is evaluated a second time: what is good by luck alone is no answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
import re
import time
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import onnx
import onnx_models
import pytest

from optuna_quant.cli.parser import main
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.batches import Batches
from optuna_quant.study import record
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.errors import TuningInterrupted
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.second_evaluation import with_second_evaluation
from optuna_quant.tuning.validation import SecondEvaluation


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.05, "c": 0.3}
REFUTED = "NOT REPRODUCIBLE: the model met the criterion, but not when evaluated again:"


class Scripted:
    """Gives the accuracy of a model, and at later calls for the same model less or more.

    Args:
        change:
            What is added to the accuracy of a quantized model from the second call on.
        change_of_fp32:
            The same for FP32.
    """

    def __init__(self, change: float = 0.0, change_of_fp32: float = 0.0) -> None:
        self.change = change
        self.change_of_fp32 = change_of_fp32
        self.calls = defaultdict[str, int](int)
        self.seen: list[FakeModel] = []

    def signature(self) -> dict[str, str]:
        """Always the same evaluation, whatever it gives."""
        return {"function": "scripted"}

    def __call__(self, model: FakeModel) -> float:
        self.calls[model.fingerprint] += 1
        self.seen.append(model)
        change = self.change if model.config.quantized_ops else self.change_of_fp32
        return model.accuracy + (change if self.calls[model.fingerprint] > 1 else 0.0)


def tune_fake(evaluate: Callable[[FakeModel], float], **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {"accuracy_criterion": TOLERANT}
    return tune(backend=FakeBackend(DAMAGE), evaluate=evaluate, **given | kwargs)


# A function that gives one number.


def test_answer_is_evaluated_twice_and_nothing_else_is() -> None:
    evaluate = Scripted()
    result = tune_fake(evaluate)
    assert result.met
    assert result.metric == pytest.approx(0.85)
    (answer,) = [name for name, calls in evaluate.calls.items() if calls > 1]
    assert evaluate.calls[answer] == 2
    assert result.trial is not None
    assert result.trial.user_attrs[record.FINGERPRINT] == answer
    assert evaluate.seen[-1].fingerprint == answer
    found = result.second_evaluation
    assert found is not None
    assert (found.metric, found.baseline, found.evaluated) == (result.metric, None, 1.0)
    assert not found.differs
    assert "second" not in str(result)
    trials = [t for t in result.study.trials if record.REUSED_FROM not in t.user_attrs]
    assert result.full_evaluations == len(trials) + 1 == len(evaluate.seen)


def test_what_does_not_meet_again_is_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    left, other = tmp_path / "out.0123456789abcdef.data", tmp_path / "out.data"
    left.touch()  # The weights of a large model.
    other.touch()
    written: list[bool] = []
    result = tune_fake(
        Scripted(change=-0.1),
        output=output,
        callbacks=[lambda study, trial: written.append(output.exists())],
    )
    assert written[-1]  # It was the best so far.
    assert not result.met
    assert not result.is_reproducible
    assert not output.exists()
    assert not left.exists()
    assert other.exists()  # Not one of ours.
    assert result.config is not None
    found = result.second_evaluation
    assert found is not None
    assert found.metric == pytest.approx(0.75)
    assert found.baseline == 0.9
    lines = str(result).splitlines()
    assert lines[0] == REFUTED
    assert (
        "not reproducible exactly: evaluated twice, the metric is 0.85 and 0.75, FP32 0.9 and "
        "0.9: NOT met each time"
    ) in lines
    assert "Make the model and the evaluation deterministic" in caplog.text
    with pytest.raises(ValueError, match=r"does not meet the criterion every time.*closest=True"):
        result.save(output)
    result.save(output, closest=True)
    assert output.exists()


def test_what_differs_and_meets_again_is_said(tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = tune_fake(Scripted(change=-0.02), output=output)
    assert result.met
    assert result.metric == pytest.approx(0.85)
    assert output.exists()
    assert str(result).startswith("A quantized model meets the criterion.")
    line = "evaluated twice, the metric is 0.85 and 0.83, FP32 0.9 and 0.9: met again"
    assert f"not reproducible exactly: {line}" in str(result).splitlines()


def test_fp32_may_have_been_unlucky() -> None:
    """The answer is hardly better the second time, but FP32 is a lot better."""
    result = tune_fake(Scripted(change=0.001, change_of_fp32=0.09))
    assert not result.met
    assert result.second_evaluation is not None
    assert result.second_evaluation.baseline == pytest.approx(0.99)
    assert str(result).startswith(REFUTED)


def test_second_evaluation_that_fails_is_no_second_one(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    broken = Scripted()

    def evaluate(model: FakeModel) -> float:
        if broken.calls[model.fingerprint]:
            raise RuntimeError("the data are used up")
        return broken(model)

    output = tmp_path / "out"
    result = tune_fake(evaluate, storage=storage, output=output)
    assert not result.met
    assert not output.exists()
    assert result.not_repeatable == "RuntimeError: the data are used up"
    lines = str(result).splitlines()
    assert lines[0] == REFUTED
    assert "a second evaluation failed: RuntimeError: the data are used up" in lines
    # Nothing is kept of it, so the same call tries again.
    again = tune_fake(Scripted(), storage=storage, output=output)
    assert again.met
    assert output.exists()
    assert len(again.study.trials) == len(result.study.trials)


def test_infinite_second_metric_of_fp32_is_no_baseline() -> None:
    result = tune_fake(Scripted(change=-0.01, change_of_fp32=float("-inf")))
    assert not result.met
    assert "The metric of the FP32 model must be finite" in str(result.not_repeatable)


def test_interrupt_keeps_the_answer() -> None:
    evaluate = Scripted()

    def interrupted(model: FakeModel) -> float:
        if evaluate.calls[model.fingerprint]:
            raise KeyboardInterrupt
        return evaluate(model)

    with pytest.raises(TuningInterrupted) as raised:
        tune_fake(interrupted)
    result = raised.value.result
    assert result.met
    assert result.stopped_because == "interrupted"
    assert result.not_repeated == "it was interrupted"
    told = (
        "not evaluated a second time (it was interrupted): it met the criterion once, and whether "
        "it does so again is not known"
    )
    assert told in str(result).splitlines()


class Interrupted(Scripted):
    """Is interrupted at the second call for the same model, once."""

    is_interrupted = True

    def __call__(self, model: FakeModel) -> float:
        if self.is_interrupted and self.calls[model.fingerprint]:
            self.is_interrupted = False
            raise KeyboardInterrupt
        return super().__call__(model)

    def signature(self) -> dict[str, str]:
        return {"corpus": "mine"}


def test_what_an_interrupted_search_has_written_is_removed_if_refuted(tmp_path: Path) -> None:
    given = {"storage": str(tmp_path / "journal"), "output": tmp_path / "out"}
    evaluate = Interrupted(change=-0.5)
    with pytest.raises(TuningInterrupted):
        tune_fake(evaluate, **given)
    assert (tmp_path / "out").exists()
    result = tune_fake(evaluate, **given)
    assert str(result).startswith(REFUTED)
    assert not (tmp_path / "out").exists()
    # It is not known what this is.
    (tmp_path / "out").write_text("another model")
    assert not tune_fake(evaluate, **given).met
    assert (tmp_path / "out").read_text() == "another model"


def test_second_evaluation_that_hangs_is_ended() -> None:
    evaluate = Scripted()

    def hanging(model: FakeModel) -> float:
        if model.config.quantized_ops and evaluate.calls[model.fingerprint]:
            time.sleep(60)
        return evaluate(model)

    result = tune_fake(hanging, evaluation_timeout=0.3)
    assert not result.met
    assert "took longer than evaluation_timeout=0.3 s" in str(result.not_repeatable)


def test_no_worker_waits_for_a_second_evaluation_that_does_not_come_back() -> None:
    evaluate = Scripted()
    result = tune_fake(evaluate, verify=False)
    asked: list[TuningResult] = []

    def other() -> TuningResult:
        return with_second_evaluation(result, evaluate)

    def hang(run: Callable[[], Any], *, give_up: Callable[[str], None]) -> Any:
        give_up("it took longer than evaluation_timeout=1 s")
        asked.append(other())
        return run()

    with_second_evaluation(result, evaluate, limited=hang)
    (found,) = asked
    assert not found.met
    assert "evaluation_timeout=1 s, and did not return" in str(found.not_repeatable)
    assert found.full_evaluations == result.full_evaluations


def test_it_can_be_left_out() -> None:
    evaluate = Scripted(change=-0.5)
    result = tune_fake(evaluate, verify=False)
    assert result.met
    assert result.second_evaluation is None
    assert "second" not in str(result)
    assert set(evaluate.calls.values()) == {1}


@pytest.mark.parametrize(
    ("metric", "baseline", "met"),
    [
        (0.85, 0.9, True),
        (0.81, 0.9, True),
        (0.79, 0.9, False),
        # As good as its own FP32, and by far not as the first.
        (0.25, 0.24, False),
        # The first metric is too bad for the second FP32.
        (0.95, 0.96, False),
        (0.85, 0.7, True),
    ],
)
def test_it_has_to_be_met_against_either_baseline(
    metric: float, baseline: float, met: bool
) -> None:
    found = SecondEvaluation((0.85, 0.9), metric, baseline, 2.0)
    assert found.meets(TOLERANT) == met


def test_what_is_not_met_is_not_evaluated_again() -> None:
    evaluate = Scripted(change=1.0)
    strict = AccuracyCriterion(criterion="absolute", tolerable_loss=0.0)
    result = tune_fake(evaluate, accuracy_criterion=strict)
    assert not result.met
    assert result.is_reproducible
    assert set(evaluate.calls.values()) == {1}
    assert str(result).startswith("NOT MET: ")


# The record.


@pytest.mark.parametrize("change", [0.0, -0.02, -0.5])
def test_study_keeps_what_it_has_found(change: float, tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    evaluate = Scripted(change)
    first = tune_fake(evaluate, storage=storage)
    before = len(evaluate.seen)
    again = tune_fake(evaluate, storage=storage)
    assert len(evaluate.seen) == before
    assert again.met == first.met == (change > -0.1)
    assert str(again) == str(first)
    assert again.full_evaluations == first.full_evaluations == before


def test_one_of_two_workers_evaluates_the_answer_again(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    evaluate = Scripted(change=-0.5)

    def slow(model: FakeModel) -> float:
        time.sleep(0.05)
        return evaluate(model)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: tune_fake(slow, storage=storage), range(2)))
    assert [result.met for result in results] == [False, False]
    assert results[0].second_evaluation == results[1].second_evaluation
    assert results[0].trial is not None
    answer = results[0].trial.user_attrs[record.FINGERPRINT]
    # FP32 is evaluated again as well; all others, and these two before, once.
    assert {name for name, calls in evaluate.calls.items() if calls > 1} == {
        answer,
        FakeBackend(DAMAGE).fingerprint(results[0].space.fp32()),
    }
    assert max(evaluate.calls.values()) == 2


def test_outcome_follows_the_tolerance(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    evaluate = Scripted(change=-0.1)
    assert not tune_fake(evaluate, storage=storage).met
    before = len(evaluate.seen)
    # The same model is the answer with that tolerance as well, and 0.15 is good enough for it.
    wider = AccuracyCriterion(criterion="absolute", tolerable_loss=0.18)
    assert tune_fake(evaluate, storage=storage, accuracy_criterion=wider).met
    assert len(evaluate.seen) == before


def test_another_answer_is_evaluated_again(tmp_path: Path) -> None:
    """With a stricter tolerance another model is the answer, of which nothing is known yet."""
    storage = str(tmp_path / "journal")
    evaluate = Scripted()
    tune_fake(evaluate, storage=storage)
    wide = AccuracyCriterion(criterion="absolute", tolerable_loss=0.5)
    result = tune_fake(evaluate, storage=storage, accuracy_criterion=wide)
    assert result.met
    assert result.second_evaluation is not None
    twice = [name for name, calls in evaluate.calls.items() if calls == 2]
    assert len(twice) == 2
    assert result.full_evaluations == len(evaluate.seen)


# Labelled data: a few samples tell.


SAMPLES = 200


def noisy(scale: float) -> onnx.ModelProto:
    """Gemm, and noise of another draw in each run: input ``x`` of (N, 16)."""
    m = onnx_models.Maker()
    scores = m.node("Gemm", [m.input("x", ["N", 16]), m.weight(16, 4)])
    if not scale:
        return m.model([scores])
    noise = m.node("RandomNormalLike", [scores], scale=scale, seed=3.0)
    return m.model([m.node("Add", [scores, noise])])


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    x = onnx_models.samples(SAMPLES, 16)
    return {"x": x, "labels": onnx_models.run(noisy(0.0), {"x": x})[0].argmax(axis=1)}


def tune_on(some: Any, x: np.ndarray, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "calibration_data": {"x": x},
        "data": some,
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.3),
        "tuning_criterion": TuningCriterion(objective="ops"),
        "evaluation_threads": 1,
    }
    return tune(kwargs.pop("model", None) or noisy(0.0), **given | kwargs)


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_few_samples_are_enough_where_nothing_is_random(
    data: dict[str, np.ndarray], stopping: str
) -> None:
    result = tune_on(data, data["x"], early_stopping=stopping)
    assert result.met
    found = result.second_evaluation
    assert found is not None
    assert (found.metric, found.baseline) == (None, None)
    assert 0 < found.evaluated <= 3 * 12 / SAMPLES
    assert "a second" not in str(result)
    # What it has cost is said where evaluations are counted in samples.
    told = f"{found.evaluated:.2g} of it for the second evaluation)" in str(result)
    assert told == (stopping == "paired")


@pytest.mark.parametrize("metric", ["accuracy", "cosine"])
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_dynamic_models_in_batches_are_the_same_in_the_same_batches(
    data: dict[str, np.ndarray], approach: str, metric: str
) -> None:
    with pytest.warns(UserWarning, match="batches of 50") if approach == "dynamic" else _nothing():
        result = tune_on(data, data["x"], approach=approach, batch_size=50, metric=metric)
    assert result.met
    assert result.second_evaluation is not None
    assert not result.second_evaluation.differs


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_random_model_is_evaluated_again_as_a_whole(
    data: dict[str, np.ndarray], stopping: str
) -> None:
    with pytest.warns(UserWarning, match="outputs for the same samples change from run to run"):
        result = tune_on(data, data["x"], model=noisy(2.0), early_stopping=stopping)
    found = result.second_evaluation
    assert found is not None
    assert found.differs
    assert found.first == (result.metric, result.baseline)
    assert found.evaluated == pytest.approx(2 + 2 * 12 / SAMPLES)
    assert result.met == found.meets(result.criterion)
    assert "not reproducible exactly: evaluated twice, the metric is " in str(result)


@pytest.mark.parametrize(
    ("batches", "cure"),
    [
        (None, "Make the model and the evaluation deterministic"),
        (Batches(1), "Make the model and the evaluation deterministic"),
        (Batches(60), r"depends on the batch.*leave batch_size out"),
    ],
)
def test_cure_is_that_of_the_cause(
    batches: Batches | None, cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate = Scripted(change=-0.5)
    result = replace(tune_fake(evaluate, verify=False), batches=batches)
    assert not with_second_evaluation(result, evaluate).met
    assert re.search(cure, caplog.text)


class Augmented:
    """Samples that are disturbed each time that they are read, from some call on."""

    def __init__(self, data: dict[str, np.ndarray], calm: int) -> None:
        self._data = data
        self._calm = calm
        self._draw = np.random.default_rng(0)
        self.calls = 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.calls += 1
        x = self._data["x"][index]
        if self.calls > self._calm:
            x = self._draw.standard_normal(16).astype(np.float32)
        return x, int(self._data["labels"][index])


def test_data_that_change_refute_the_answer(data: dict[str, np.ndarray]) -> None:
    counting = Augmented(data, 10**9)
    assert tune_on(counting, data["x"], verify=False).met
    # Calm as long as the search needs it; what is read after that has nothing to do with labels.
    result = tune_on(Augmented(data, counting.calls), data["x"])
    assert not result.met
    assert str(result).startswith(REFUTED)
    assert result.second_evaluation is not None
    assert result.second_evaluation.metric is not None
    assert result.second_evaluation.metric < 0.6


# The command line.


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, np.ndarray]
) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(noisy(0.0).SerializeToString())
    np.savez("calib.npz", x=data["x"])
    # Each call is worse than the one before by less than the tolerance of a search of two.
    Path("lucky.py").write_text(
        "from pathlib import Path\n"
        "count = Path('count')\n"
        "def evaluate(session):\n"
        "    calls = int(count.read_text()) if count.exists() else 0\n"
        "    count.write_text(str(calls + 1))\n"
        "    return [0.9, 0.9, 0.5, 0.9][calls]\n"
    )
    search = ["tune", "net.onnx", "--objective", "ops", "--no-gain", "--quiet"]
    return [*search, "--calibration", "calib.npz", "--evaluate", "lucky.py"]


def test_command_line_does_not_take_luck_for_an_answer(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--no-gain"]) == 1
    out = capsys.readouterr().out
    assert out.startswith(REFUTED)
    assert "not written: net.quantized.onnx" in out
    assert not Path("net.quantized.onnx").exists()
    # The record knows it.
    assert main([*command, "--no-gain"]) == 1
    assert capsys.readouterr().out == out
    assert Path("count").read_text() == "4"


def test_command_line_can_leave_it_out(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--no-verify"]) == 0
    assert Path("net.quantized.onnx").exists()
    assert Path("count").read_text() == "2"
    assert "second" not in capsys.readouterr().out
