"""Evaluation on labelled data, a batch at a time and in any order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
import threading
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.evaluation.user_code import shown


class Value:
    def __init__(self, name: str, kind: str, shape: list[int | str | None]) -> None:
        self.name, self.type, self.shape = name, kind, shape


class Session:
    """Gives its input, as the scores of the classes."""

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray] = lambda x: x,
        *,
        batch: int | str = "batch",
    ) -> None:
        self._function = function
        self._batch = batch
        self.sizes: list[int] = []

    def get_inputs(self) -> list[Value]:
        return [Value("x", "tensor(float)", [self._batch, 3])]

    def get_outputs(self) -> list[Value]:
        return [Value("scores", "tensor(float)", [self._batch, 3])]

    def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs == ["scores"]
        assert feed["x"].dtype == np.float32
        self.sizes.append(len(feed["x"]))
        return [self._function(feed["x"])]


class Gate:
    """A session that waits until it is let go on, and knows how many runs there are at once."""

    def __init__(self, *, width: int) -> None:
        self._inner = Session()
        self._barrier = threading.Barrier(width)
        self.started = 0
        self._lock = threading.Lock()

    def get_inputs(self) -> list[Value]:
        return self._inner.get_inputs()

    def get_outputs(self) -> list[Value]:
        return self._inner.get_outputs()

    def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self._lock:
            self.started += 1
        self._barrier.wait(timeout=60)
        return self._inner.run(outputs, feed)


class Dataset:
    """Counts what is read."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._x, self._y = x, y
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return self._x[index], self._y[index]


RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3)).astype(np.float32)
Y = RNG.integers(0, 3, size=23)
DATA = {"x": X, "y": Y}


def first(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The first number of each sample, which tells it from the others."""
    return output[:, 0]


def pieces(scores: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(scores))


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", ["batch", 4])
def test_scores_in_any_order(threads: int, batch: int | str) -> None:
    session = Session(batch=batch)
    evaluation = DataEvaluation(DATA, first, batch_size=5, threads=threads)
    order = np.random.default_rng(1).permutation(23)[:17]
    batches = list(evaluation.scores(session, order))
    assert np.concatenate(batches) == pytest.approx(X[order, 0])
    assert all(scores.dtype == np.float64 for scores in batches)
    assert [len(scores) for scores in batches] == (
        [5, 5, 5, 2] if batch == "batch" else [4] * 4 + [1]
    )
    assert sorted(session.sizes) == ([2, 5, 5, 5] if batch == "batch" else [4] * 5)


@pytest.mark.parametrize("threads", [1, 2])
def test_mean_is_that_of_all_samples(threads: int) -> None:
    evaluation = DataEvaluation(DATA, batch_size=4, threads=threads)
    assert evaluation(Session()) == pytest.approx((X.argmax(axis=1) == Y).mean())
    assert evaluation(Session(batch=7)) == evaluation(Session())
    assert DataEvaluation(Dataset(X, Y), threads=threads)(Session()) == evaluation(Session())


def test_what_it_tells_of_itself() -> None:
    evaluation = DataEvaluation(DATA, batch_size=4, threads=2)
    assert (evaluation.metric, evaluation.name) == ("accuracy", "accuracy")
    assert (evaluation.samples, evaluation.bounds) == (23, (0, 1))
    assert (evaluation.batch_size, evaluation.threads) == (4, 2)
    assert evaluation.is_mean
    assert evaluation.higher_is_better
    lower = DataEvaluation(DATA, "mse", metric_bounds=(0, 4))
    assert (lower.bounds, lower.higher_is_better) == ((0, 4), False)
    assert DataEvaluation(DATA, first).bounds is None
    corpus = DataEvaluation(DATA, CorpusMetric(name="AUC", score=lambda o, t: 0.5))
    assert (corpus.is_mean, corpus.bounds, corpus.name) == (False, None, "AUC")


def test_indices_may_be_none_or_a_list() -> None:
    evaluation = DataEvaluation(DATA, first)
    assert list(evaluation.scores(Session(), [])) == []
    assert pieces(evaluation.scores(Session(), [3, 3])) == pytest.approx(X[[3, 3], 0])


def test_nothing_is_run_before_it_is_asked_for() -> None:
    session, data = Session(), Dataset(X, Y)
    scores = DataEvaluation(data, batch_size=2).scores(session, np.arange(23))
    assert (session.sizes, data.read) == ([], [0])  # The first sample is checked.
    next(scores)
    assert (session.sizes, data.read) == ([2], [0, 0, 1])
    scores.close()
    assert session.sizes == [2]


def test_threads_run_at_the_same_time_and_not_far_ahead() -> None:
    session, data = Gate(width=2), Dataset(X, Y)  # Each run needs another one.
    scores = DataEvaluation(data, first, batch_size=1, threads=2).scores(session, range(22))
    assert next(scores) == pytest.approx(X[0, 0])
    assert len(data.read) == 1 + 3  # The check, and the batches that are under way.
    assert pieces(scores) == pytest.approx(X[1:22, 0])
    assert session.started == 22


@pytest.mark.parametrize("threads", [2, 3])
def test_closing_early_leaves_nothing_behind(threads: int) -> None:
    session = Session()
    evaluation = DataEvaluation(DATA, batch_size=1, threads=threads)
    for generator in (
        evaluation.scores(session, np.arange(23)),
        evaluation.scores_and_margins(session, np.arange(23)),
    ):
        session.sizes.clear()
        next(generator)  # type: ignore[call-overload]
        generator.close()
        assert len(session.sizes) <= threads + 1


@pytest.mark.parametrize("threads", [1, 2])
def test_error_of_the_model_gets_out(threads: int) -> None:
    def fail(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel") as caught:
        DataEvaluation(DATA, batch_size=2, threads=threads)(Session(fail))
    assert shown(caught.value) == (
        "RuntimeError: no such kernel. It fails on sample 0 of the evaluation data, with inputs "
        f"of shape 'x' {X[0].shape}."
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_tells_which_sample_fails(threads: int) -> None:
    def fail(x: np.ndarray) -> np.ndarray:
        if (x == X[13]).all(axis=1).any():
            raise RuntimeError("index out of range")
        return x

    evaluation = DataEvaluation(DATA, batch_size=5, threads=threads)
    with pytest.raises(RuntimeError, match="index out of range") as caught:
        deque(evaluation.scores(Session(fail), [*range(20, 3, -1)]), maxlen=0)
    assert "It fails on sample 13 of the evaluation data" in shown(caught.value)


def test_an_error_of_a_batch_alone_tells_the_batch() -> None:
    def fail(x: np.ndarray) -> np.ndarray:
        if len(x) > 1:
            raise RuntimeError("out of memory")
        return x

    with pytest.raises(RuntimeError) as caught:
        DataEvaluation(DATA, batch_size=5)(Session(fail))
    assert shown(caught.value) == (
        "RuntimeError: out of memory. It was run on 5 samples from 0 to 4 of the evaluation data, "
        f"the first with inputs of shape 'x' {X[0].shape}, and fails on none of them alone."
    )


def test_scores_with_margins() -> None:
    order = np.array([5, 2, 9, 11])
    pairs = list(DataEvaluation(DATA, batch_size=3).scores_and_margins(Session(), order))
    assert np.concatenate([s for s, _ in pairs]) == pytest.approx(accuracy(X[order], Y[order]))
    powers = np.sort(np.exp(X[order].astype(float)), axis=1)
    expected = (powers[:, 2] - powers[:, 1]) / powers.sum(axis=1)
    margins = np.concatenate([m for _, m in pairs if m is not None])
    assert margins == pytest.approx(expected, rel=1e-5)
    assert margins.dtype == np.float64
    assert [m for _, m in DataEvaluation(DATA, first).scores_and_margins(Session(), [1])] == [None]
    wrong = SampleMetric(name="own", score=first, margin=lambda output, labels: output)
    with pytest.raises(
        ValueError, match=r"margin of the metric 'own'.*\(2,\), but is float32.*3\)"
    ):
        list(DataEvaluation(DATA, wrong).scores_and_margins(Session(), [1, 2]))


# A metric of the whole set.


def test_corpus_metric_gets_everything() -> None:
    def score(outputs: np.ndarray, labels: np.ndarray) -> float:
        assert outputs.tolist() == X.tolist()
        assert labels.tolist() == Y.tolist()
        return 0.25

    metric = CorpusMetric(name="AUC", score=score, higher_is_better=False)
    evaluation = DataEvaluation(DATA, metric, batch_size=4, threads=2)
    assert evaluation(Session()) == 0.25
    assert evaluation(Session(batch=4)) == 0.25
    assert not evaluation.higher_is_better
    with pytest.raises(ValueError, match="'AUC' is a metric of the whole set"):
        evaluation.scores(Session(), [0])


@pytest.mark.parametrize("value", [np.nan, np.inf, None, np.zeros(3)])
def test_corpus_metric_must_be_a_number(value: Any) -> None:
    metric = CorpusMetric(name="AUC", score=lambda outputs, labels: value)
    with pytest.raises(ValueError, match="'AUC' must be a finite number, but is"):
        DataEvaluation(DATA, metric)(Session())


def test_corpus_metric_needs_one_shape() -> None:
    widths = iter([1, 2, 3, 4, 5, 6])
    session = Session(lambda x: np.zeros((len(x), next(widths))))
    metric = CorpusMetric(name="BLEU", score=lambda outputs, labels: 1.0)
    with pytest.raises(
        ValueError, match=r"'BLEU' needs the outputs .* in one shape.*\(1,\), \(2,\)"
    ):
        DataEvaluation(DATA, metric, batch_size=4)(session)


# Errors.


def scored(value: Any, **options: Any) -> list[np.ndarray]:
    """The scores where each sample gets the value, except that sample 7 gets the last one."""
    values = np.full(23, 0.5)
    values[7] = value
    order = {float(x): score for x, score in zip(X[:, 0], values, strict=True)}
    metric = SampleMetric(
        name="own", score=lambda o, t: np.array([order[float(x)] for x in o[:, 0]]), **options
    )
    return list(DataEvaluation(DATA, metric, batch_size=4).scores(Session(), np.arange(23)[::-1]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_score_that_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=f"'own' is {value} for sample 7; it must be finite"):
        scored(value)


@pytest.mark.parametrize("value", [1.001, -0.001])
def test_score_out_of_bounds(value: float) -> None:
    message = rf"'own' is {value} for sample 7, which is outside its bounds \(0.0, 1.0\). Give"
    with pytest.raises(ValueError, match=message):
        scored(value, bounds=(0, 1))
    assert value in np.concatenate(scored(value))


@pytest.mark.parametrize(("value", "clipped"), [(1 + 1e-10, 1.0), (-1e-10, 0.0)])
def test_rounding_is_no_error(value: float, clipped: float) -> None:
    assert clipped in np.concatenate(scored(value, bounds=(0, 1)))


def test_rounding_of_single_precision_is_no_error() -> None:
    metric = SampleMetric(
        name="own", score=lambda o, t: np.full(len(t), 1.0000002, np.float32), bounds=(0, 1)
    )
    assert DataEvaluation(DATA, metric)(Session()) == 1.0


@pytest.mark.parametrize(
    "score",
    [
        lambda o, t: o,
        lambda o, t: 0.5,
        lambda o, t: (o.argmax(1) == t)[:, None],
        lambda o, t: np.array(["a"] * len(t)),
    ],
)
def test_score_must_be_one_number_for_each_sample(score: Any) -> None:
    with pytest.raises(ValueError, match=r"one number for each sample, of shape \(5,\).*Corpus"):
        DataEvaluation(DATA, score, batch_size=5)(Session())


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([23], "There is no sample 23: the samples are 0 to 22"),
        ([0, -1], "There is no sample -1"),
        ([0.5], "indices must be integers.*float64"),
        ([[1]], r"indices must be integers of shape \(n,\)"),
    ],
)
def test_indices_that_are_none(indices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataEvaluation(DATA).scores(Session(), indices)


def test_data_that_do_not_fit_are_found_before_anything_is_run() -> None:
    session = Session()
    evaluation = DataEvaluation({"x": X[:, :2], "y": Y})
    for check in (evaluation.check, evaluation, lambda s: evaluation.scores(s, [0])):
        with pytest.raises(ValueError, match="Input 'x'"):
            check(session)
    assert session.sizes == []


@pytest.mark.parametrize("function", [lambda x: x.sum(), lambda x: x[:, 0][:2], lambda x: x.T])
def test_output_without_samples(function: Any) -> None:
    with pytest.raises(ValueError, match="'scores' must have the samples along its first axis"):
        DataEvaluation(DATA, batch_size=5)(Session(function))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, but got 0"):
        DataEvaluation(DATA, threads=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        DataEvaluation(DATA, batch_size=0)
    with pytest.raises(ValueError, match="leave them out"):
        DataEvaluation(DATA, metric_bounds=(0, 3))


# ONNX Runtime itself.


def test_session_of_onnxruntime(tmp_path: Any) -> None:
    from onnx import TensorProto
    from onnx import helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])
    node = helper.make_node("Neg", ["x"], ["out"])
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "labels.npy", Y)
    expected = ((-X).argmax(axis=1) == Y).astype(float)
    order = np.random.default_rng(3).permutation(23)
    for threads in (1, 2):
        for data in (DATA, tmp_path, Dataset(X, Y)):
            evaluation = DataEvaluation(data, batch_size=4, threads=threads)
            assert evaluation(session) == pytest.approx(expected.mean())
            assert pieces(evaluation.scores(session, order)).tolist() == expected[order].tolist()


# What a metric does to its arguments.


def is_right(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (output.argmax(axis=1) == labels).astype(float)


def spoil(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same, but it writes into all that it is given."""
    found = is_right(output, labels)
    output[...] = 7
    labels[...] = 99
    return found


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_metric_that_writes_into_its_arguments_spoils_nothing(
    tmp_path: Path, threads: int, mapped: bool
) -> None:
    x = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    labels = x.argmax(axis=1)
    labels[::4] = (labels[::4] + 1) % 3
    data: Any = {"x": x.copy(), "labels": labels.copy()}
    if mapped:
        for name, array in data.items():
            np.save(tmp_path / f"{name}.npy", array)
        data = tmp_path
    metric = SampleMetric(name="m", score=spoil, bounds=(0, 1), margin=spoil)
    evaluation = DataEvaluation(data, metric, batch_size=16, threads=threads)
    session, every = Session(np.copy), np.arange(40)
    expected = is_right(x, labels)
    for _ in range(2):
        assert evaluation(session) == 0.75
        assert np.array_equal(np.concatenate(list(evaluation.scores(session, every))), expected)
        pairs = list(evaluation.scores_and_margins(session, every))
        assert np.array_equal(np.concatenate([scores for scores, _ in pairs]), expected)
        assert np.array_equal(np.concatenate([margin for _, margin in pairs]), expected)
    if not mapped:
        assert np.array_equal(data["x"], x)
        assert np.array_equal(data["labels"], labels)


def test_a_metric_of_the_whole_set_spoils_nothing() -> None:
    x = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    boxes = np.empty(40, dtype=object)
    boxes[:] = [[index] for index in range(40)]

    def score(output: np.ndarray, labels: np.ndarray) -> float:
        found = float(sum(label[0] for label in labels))
        for label in labels:
            label[0] = -1
        return found

    evaluation = DataEvaluation(
        {"x": x, "labels": boxes}, CorpusMetric(name="m", score=score), batch_size=16
    )
    assert [evaluation(Session(np.copy)) for _ in range(2)] == 2 * [float(sum(range(40)))]
    assert boxes[3] == [3]


def test_a_dataset_may_give_one_buffer_again_and_again() -> None:
    class Dataset:
        def __init__(self) -> None:
            self._label = np.zeros((), np.int64)
            self._x = np.zeros(3, np.float32)

        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            self._label[...] = index % 3
            self._x[:] = np.eye(3, dtype=np.float32)[index % 3]
            return self._x, self._label

    assert DataEvaluation(Dataset(), batch_size=4)(Session(np.copy)) == 1.0
