"""Data as people have them: loaders, streams, pairs, images, samples of several shapes."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from collections.abc import Iterator
import logging
from pathlib import Path
import sys
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import run
from onnx_models import samples
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset
from torch.utils.data import IterableDataset
from torch.utils.data import SubsetRandomSampler
from torch.utils.data import TensorDataset
from torch.utils.data import WeightedRandomSampler

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import CorpusMetric
from optuna_quant import SampleMetric
from optuna_quant import TuningCriterion
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli import exit_codes
from optuna_quant.cli import parser
from optuna_quant.data import loaders
from optuna_quant.data.inputs import InputSpec
from optuna_quant.data.loaders import LoaderSamples
from optuna_quant.data.sources import open_data
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.signature import signature_of


OPS = ["--objective", "ops"]


X = samples(23, 3)
Y = np.random.default_rng(1).integers(0, 3, size=23)
SPEC = InputSpec("x", np.dtype(np.float32), ("N", 3))
DATA_SPEC = InputSpec("x", np.dtype(np.float32), (None, 3))


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.tensor(x), int(y)) for x, y in zip(X, Y, strict=True)])


class Again:
    """Batches that can be read any number of times."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


def keras_sequence(name: str, module: str) -> type[Any]:
    """A class as Keras has it, of a name and a module of its own."""
    return type(name, (), {"__module__": module, "on_epoch_end": lambda self: None})


def py_dataset(
    batches: list[Any], name: str = "PyDataset", module: str = "keras.src.trainers.py_dataset"
) -> Any:
    """A user's own data set of Keras, which may be iterated over without an end."""

    class Mine(keras_sequence(name, module)):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> Any:
            return batches[index % len(batches)]

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return batches[0]

    return Mine()


class Named(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": X[index], "labels": int(Y[index])}


def rows(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    return X[first:last], Y[first:last]


def in_batches(size: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    return [rows(i, i + size) for i in range(0, 23, size)]


def collate(items: list[Any]) -> Any:
    return {
        "x": torch.stack([torch.as_tensor(x) for x, _ in items]),
        "labels": torch.tensor([int(y) for _, y in items]),
    }


def as_user_dict(items: list[Any]) -> Any:
    return UserDict(collate(items))


PAIRS = TensorDataset(torch.tensor(X), torch.tensor(Y))

SOURCES: dict[str, Callable[[], Any]] = {
    "loader": lambda: DataLoader(PAIRS, batch_size=4),
    "shuffled": lambda: DataLoader(PAIRS, batch_size=4, shuffle=True, drop_last=True),
    "one by one": lambda: DataLoader(PAIRS, batch_size=None),
    "collated": lambda: DataLoader(PAIRS, batch_size=4, collate_fn=collate),
    "user dict": lambda: DataLoader(PAIRS, batch_size=4, collate_fn=as_user_dict),
    "dicts": lambda: DataLoader(Named(), batch_size=4, shuffle=True),
    "dataset": Named,
    "stream": lambda: DataLoader(Stream(), batch_size=4),
    "single stream": lambda: DataLoader(Stream(), batch_size=None),
    "pair": lambda: (X, Y),
    "pair of tensors": lambda: (torch.tensor(X), torch.tensor(Y)),
    "pair with a dict": lambda: ({"x": X}, Y),
    "lists": lambda: (list(X), Y.tolist()),
    "gradients": lambda: (torch.tensor(X, requires_grad=True), torch.tensor(Y)),
    "batches": in_batches,
    "batches as lists": lambda: [list(batch) for batch in in_batches()],
    "batches of dicts": lambda: [{"x": x, "y": y} for x, y in in_batches()],
    "batches of one": lambda: in_batches(1),
    "iterable": lambda: Again(in_batches()),
    "data set of Keras": lambda: py_dataset(in_batches()),
    "sequence of Keras": lambda: py_dataset(in_batches(), "Sequence", "keras.utils.data_utils"),
    "iterator": lambda: iter(in_batches()),
    "generator": lambda: (batch for batch in in_batches()),
    "function": lambda: lambda: iter(in_batches()),
    "samples of a stream": lambda: iter([(x, y) for x, y in zip(X, Y, strict=True)]),
    "list of batches of one": lambda: [(x[None], [y]) for x, y in zip(X, Y, strict=True)],
    "arrays with an axis of one": lambda: {"x": X[:, None], "y": Y},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_samples_are_read_in_any_order(kind: str) -> None:
    data = open_data(SOURCES[kind]())
    data.check([DATA_SPEC])
    assert data.samples == 23
    for indices in ([3, 22, 0], [7], list(range(23))):
        features, labels = data.batch(np.array(indices), [DATA_SPEC])
        assert np.asarray(features["x"]).tolist() == X[indices].tolist()
        assert np.asarray(labels).reshape(-1).tolist() == Y[indices].tolist()


@pytest.mark.parametrize("kind", [k for k in SOURCES if k not in ("lists", "arrays with")])
def test_calibration_reads_the_same_each_time(kind: str) -> None:
    data = CalibrationData(SOURCES[kind](), [SPEC], batch_size=6)
    for _ in range(2):
        batches = list(data)
        assert np.concatenate([batch["x"] for batch in batches]).tolist() == X.tolist()
    assert set(batches[0]) == {"x"}


def test_the_number_of_samples_is_known_before_the_model() -> None:
    for kind in ("loader", "stream", "pair", "iterator"):
        assert open_data(SOURCES[kind]()).samples == 23


def test_a_loader_gives_one_order_for_all() -> None:
    shuffled = LoaderSamples(DataLoader(PAIRS, batch_size=4, shuffle=True))
    assert [int(shuffled[i][1]) for i in range(23)] == Y.tolist()
    chosen = LoaderSamples(DataLoader(PAIRS, sampler=SubsetRandomSampler([9, 2, 5])))
    assert [int(chosen[i][1]) for i in range(len(chosen))] == Y[[2, 5, 9]].tolist()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the library says."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda entry: messages.append(entry.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("optuna_quant")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_a_sampler_that_is_left_out_is_told(told: list[str]) -> None:
    weights = WeightedRandomSampler([1.0] * 23, 23)
    assert len(LoaderSamples(DataLoader(PAIRS, sampler=weights))) == 23
    assert "WeightedRandomSampler" in told[0]


def test_a_stream_is_read_once() -> None:
    read = []

    def batches() -> Iterator[Any]:
        for batch in in_batches():
            read.append(len(batch[1]))
            yield batch

    data = open_data(batches)
    data.check([DATA_SPEC])
    data.batch(np.array([22, 1]), [DATA_SPEC])
    assert sum(read) == 23


def test_a_stream_that_reuses_its_buffer() -> None:
    buffer = np.empty((1, 3), np.float32)

    def batches() -> Iterator[Any]:
        for x, y in zip(X, Y, strict=True):
            buffer[0] = x
            yield buffer, np.array([y])

    data = open_data(batches)
    assert np.asarray(data.batch(np.array([4, 9]), [DATA_SPEC])[0]["x"]).tolist() == (
        X[[4, 9]].tolist()
    )


def test_a_stream_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "_memory", lambda: 2 * 23 * 3 * 4 - 100)
    with pytest.raises(ValueError, match=r"kept in memory.*Give a dataset.*folder.*\.npy"):
        open_data(iter(in_batches()))


def test_a_stream_that_fails_is_named() -> None:
    def broken() -> Iterator[Any]:
        yield from in_batches()[:2]
        raise OSError("no such shard")

    with pytest.raises(ValueError, match="Batch 2 of the evaluation data cannot be read.*shard"):
        open_data(broken)
    with pytest.raises(TypeError, match="must return an iterable of batches.*NoneType"):
        open_data(lambda: None)
    with pytest.raises(TypeError, match="DataLoader, or an iterable of batches, but got int"):
        open_data(3)
    with pytest.raises(ValueError, match="There are no samples"):
        open_data(iter([])).check([DATA_SPEC])


def test_two_samples_are_no_pair() -> None:
    data = open_data(((X[0], 1), (X[1], 2)))
    data.check([DATA_SPEC])
    assert np.asarray(data.batch(np.array([1, 0]), [DATA_SPEC])[1]).tolist() == [2, 1]


def test_pair_for_several_inputs_or_of_several_lengths() -> None:
    other = InputSpec("mask", np.dtype(np.int64), (None, 3))
    with pytest.raises(ValueError, match="one array, but the model has 2 inputs.*x, mask"):
        open_data((X, Y)).check([DATA_SPEC, other])
    with pytest.raises(ValueError, match="same number of samples.*x: 23, the labels: 22"):
        open_data((X, Y[:22])).check([DATA_SPEC])
    with pytest.raises(ValueError, match="same number of samples.*x: 2, labels: 1"):
        open_data(([np.zeros(2), np.zeros(3)], [1])).check([DATA_SPEC])


@pytest.mark.parametrize("kind", ["pair", "iterator", "batches"])
def test_data_are_told_from_others(kind: str) -> None:
    data, same = open_data(SOURCES[kind]()), open_data(SOURCES[kind]())
    assert data.signature() == same.signature()  # type: ignore[attr-defined]
    before = X[22, 1]
    X[22, 1] += 1
    try:
        other = open_data(SOURCES[kind]())
    finally:
        changed = other.signature()  # type: ignore[attr-defined]
        X[22, 1] = before
    assert changed != same.signature()  # type: ignore[attr-defined]


def test_a_list_of_dicts_with_labels_beside_it_is_described_as_that() -> None:
    other = InputSpec("mask", np.dtype(np.int64), (None, 3))
    given = [{"x": np.ones(3, np.float32), "mask": np.ones(3, int)}] * 4
    with pytest.raises(ValueError, match=r"are a list of dicts.*list\(zip\(inputs, labels\)\)"):
        open_data((given, np.zeros(4))).check([DATA_SPEC, other])


def test_the_same_pair_is_no_holdout() -> None:
    with pytest.raises(ValueError, match="holdout and data are the same"):
        optuna_quant.tune(over_time(), approach="dynamic", data=(X, Y), holdout=(X, Y))


# Padding.


def padded(texts: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)


@pytest.mark.parametrize(("lengths", "told"), [((3, 5, 4), True), ((4, 4, 4), False)])
def test_calibration_says_that_a_loader_is_read_without_its_padding(
    lengths: tuple[int, ...], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    texts: Any = [torch.ones(n) for n in lengths]
    loader = DataLoader(texts, batch_size=3, collate_fn=padded)
    spec = InputSpec("x", np.dtype(np.float32), ("N", "length"))
    with caplog.at_level(logging.INFO, "optuna_quant.backends.calibration.sources"):
        data = CalibrationData(loader, [spec])
        assert {batch["x"].shape[1] for batch in data} == set(lengths)
    assert ("calibration_data=list(loader) keeps" in caplog.text) == told
    (batch,) = CalibrationData(list(loader), [spec])
    assert batch["x"].shape == (3, max(lengths))


# Transforms.


def test_a_transform_makes_the_inputs() -> None:
    raw = (X * 100).astype(np.int32)

    def scaled(value: Any) -> np.ndarray:
        assert np.shape(value) == (3,)
        return (np.asarray(value) / 100).astype(np.float32)

    expected = (raw / 100).astype(np.float32)
    pairs = [(x, int(y)) for x, y in zip(raw, Y, strict=True)]
    loader = DataLoader(TensorDataset(torch.tensor(raw), torch.tensor(Y)), batch_size=4)
    batches = Again([(raw[i : i + 5], Y[i : i + 5]) for i in range(0, 23, 5)])
    for source in ({"x": raw, "y": Y}, (raw, Y), pairs, loader, batches, py_dataset([*batches]),
                   [{"pixels": x, "label": y} for x, y in pairs]):  # fmt: skip
        data = open_data(source, scaled)
        data.check([DATA_SPEC])
        features, labels = data.batch(np.array([22, 3]), [DATA_SPEC])
        assert np.asarray(features["x"]).tolist() == expected[[22, 3]].tolist()
        assert np.asarray(labels).tolist() == Y[[22, 3]].tolist()
        calibration = CalibrationData(source, [SPEC], transform=scaled)
        found = np.concatenate([batch["x"] for batch in calibration])
        assert found.tolist() == expected.tolist()


def test_a_transform_of_several_inputs() -> None:
    mask = InputSpec("mask", np.dtype(np.int64), (None, 3))

    def both(value: Any) -> dict[str, Any]:
        return {"x": value["x"] * 2, "mask": value["mask"] + 1}

    source = {"x": X, "mask": np.zeros((23, 3), np.int64), "labels": Y}
    features, labels = open_data(source, both).batch(np.array([4]), [DATA_SPEC, mask])
    assert np.asarray(features["x"]).tolist() == (X[[4]] * 2).tolist()
    assert np.asarray(features["mask"]).tolist() == [[1, 1, 1]]
    assert np.asarray(labels).tolist() == [Y[4]]


def test_a_transform_that_fails_names_the_sample() -> None:
    def fail(value: Any) -> Any:
        raise KeyError("mean")

    with pytest.raises(ValueError, match="transform fails on sample 0 of the eval.*KeyError"):
        open_data((X, Y), fail).check([DATA_SPEC])
    with pytest.raises(ValueError, match="transform fails on sample 0 of the calibration data"):
        list(CalibrationData({"x": X}, [SPEC], transform=fail))
    with pytest.raises(TypeError, match="transform must be a function of one sample, but got 3"):
        open_data((X, Y), 3)  # type: ignore[arg-type]


# Images.


def colours(
    folder: Path, names: tuple[str, ...] = ("blue", "green", "red"), count: int = 4
) -> Path:
    """Images of one colour, a bit different from one another, in a folder for each class."""
    rng = np.random.default_rng(0)
    for channel, name in zip((2, 1, 0), names, strict=False):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, size=(6, 5, 3)).astype(np.uint8)
            pixels[..., channel] += 150
            PIL.Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def by_colour() -> onnx.ModelProto:
    """The class is the channel with the highest mean, from the last one on."""
    m = Maker()
    x = m.input("x", ["N", 3, 4, 4])
    h = m.node("ReduceMean", [x], axes=[2, 3], keepdims=0)
    m.node("MatMul", [h, m.const(np.eye(3, dtype=np.float32)[::-1].copy())], outputs=["y"])
    return m.model(["y"])


TRANSFORM = """
import numpy as np

def transform(image):
    return np.asarray(image.resize((4, 4)), dtype=np.float32).transpose(2, 0, 1) / 255
"""


def test_images_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(by_colour(), "model.onnx")
    colours(tmp_path / "images")
    Path("prepare.py").write_text(TRANSFORM)
    flat = tmp_path / "calib"
    flat.mkdir()
    for i, file in enumerate(sorted((tmp_path / "images").rglob("*.png"))):
        PIL.Image.open(file).save(flat / f"{i}.jpg")
    command = ["tune", "model.onnx", *OPS, "--calibration", "calib", "--data", "images",
               "--transform", "prepare.py", "--output", "out.onnx", "--quiet"]  # fmt: skip
    assert parser.main(command) == exit_codes.MET, capsys.readouterr().err
    assert "FP32 1," in capsys.readouterr().out


def test_images_without_a_transform(tmp_path: Path) -> None:
    folder = colours(tmp_path / "images")
    uint8 = InputSpec("x", np.dtype(np.uint8), (None, 6, 5, 3))
    data = open_data(folder)
    data.check([uint8])
    features, labels = data.batch(np.array([0, 11]), [uint8])
    assert np.asarray(labels).tolist() == [0, 2]
    assert np.asarray(features["x"])[0, ..., 2].min() >= 150
    with pytest.raises(ValueError, match=r"sample 0 .*images' is uint8.*expects float32.*transf"):
        data.check([InputSpec("x", np.dtype(np.float32), (None, 3, 6, 5))])


def test_another_image_of_the_same_size_is_other_data(tmp_path: Path) -> None:
    folder = colours(tmp_path / "images")
    first = signature_of(DataEvaluation(folder))
    assert signature_of(DataEvaluation(folder)) == first
    file = folder / "green" / "0.png"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert signature_of(DataEvaluation(folder)) != first


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = colours(tmp_path / "images")
    (folder / "green" / "0.png").write_bytes(b"no image")
    data = open_data(folder)
    spec = InputSpec("x", np.dtype(np.uint8), (None, None, None, 3))
    data.check([spec])
    with pytest.raises(ValueError, match=r"Sample 4 .*The image '.*green/0.png' cannot be read"):
        data.batch(np.array([3, 4]), [spec])


def test_folders_that_are_no_images(tmp_path: Path, told: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no \.npy file in the folder.*images"):
        open_data(tmp_path)
    folder = colours(tmp_path / "mixed")
    PIL.Image.new("L", (3, 3)).save(folder / "beside.png")
    with pytest.raises(ValueError, match=r"holds images \(beside.png.*as well as folders.*\(blue"):
        open_data(folder)
    numbered = colours(tmp_path / "numbered", ("2", "10", "1"))
    assert open_data(numbered).samples == 12
    assert "class 0 is '1', 1 is '10', 2 is '2'" in told[0]


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = colours(tmp_path / "images")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install "optuna_quant\[images\]"'):
        open_data(folder)


# Samples of several shapes.


def over_time() -> onnx.ModelProto:
    """Scores of three classes for each step of a sequence of any length."""
    m = Maker(seed=2)
    x = m.input("x", ["N", "time", 4])
    m.node("MatMul", [x, m.weight(4, 3)], name="dense", outputs=["y"])
    return m.model(["y"])


LENGTHS = [3, 5, 3, 2, 5, 5, 3, 4]
CLIPS = [samples(length, 4, seed=length * 10 + i) for i, length in enumerate(LENGTHS)]
STEPS = [run(over_time(), {"x": clip[None]})[0][0].argmax(axis=1) for clip in CLIPS]


def session_of(model: onnx.ModelProto, calibration: Any) -> Any:
    backend = OnnxRuntimeBackend(model, calibration_data=calibration)
    return backend.quantize(backend.tuning_space().fp32())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_sequences_of_several_lengths(threads: int, batch_size: int) -> None:
    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    wrong = [steps.copy() for steps in STEPS]
    wrong[3][0] += 1
    wrong[3] %= 3
    order = [6, 3, 0, 7, 1, 2, 5, 4]
    for source in ((CLIPS, wrong), list(zip(CLIPS, wrong, strict=True)),
                   {"x": CLIPS, "labels": wrong}):  # fmt: skip
        evaluation = DataEvaluation(source, batch_size=batch_size, threads=threads)
        scores = np.concatenate(list(evaluation.scores(fp32, order)))
        assert scores.tolist() == [1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_samples_of_one_shape_are_run_together() -> None:
    sizes = []

    class Counting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def run(self, names: Any, feed: Any) -> Any:
            sizes.append(feed["x"].shape[:2])
            return self._inner.run(names, feed)

    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    DataEvaluation((CLIPS, STEPS), batch_size=8)(Counting(fp32.session))
    assert sorted(sizes) == [(1, 2), (1, 4), (3, 3), (3, 5)]


def boxes() -> onnx.ModelProto:
    """Detection: the columns of the input with a positive sum, of (1, 4, places): (found, 4)."""
    m = Maker()
    x = m.input("x", [1, 4, "places"])
    kernel = m.const(np.eye(4, dtype=np.float32)[..., None])
    h = m.node("Conv", [x, kernel], name="conv")
    h = m.node("Transpose", [m.node("Squeeze", [h, m.const(np.array([0]))])], perm=[1, 0])
    total = m.node("ReduceSum", [h, m.const(np.array([1]))], keepdims=0)
    keep = m.node("Greater", [total, m.const(np.float32(0))])
    m.node("Compress", [h, keep], axis=0, outputs=["boxes"])
    return m.model(["boxes"])


def test_boxes_can_stop_early() -> None:
    pictures = [samples(4, 6 + i % 3, seed=i) for i in range(40)]
    truth = [p.T[p.sum(axis=0) > 0] for p in pictures]
    truth[7] = truth[7][:1]
    seen = []

    def found(output: np.ndarray, label: np.ndarray) -> float:
        seen.append(output.shape)
        return min(len(output), len(label)) / max(len(output), len(label), 1)

    metric = SampleMetric(name="count", score=found, bounds=(0, 1), per_sample=True)
    result = optuna_quant.tune(
        boxes(),
        calibration_data=[p[None] for p in pictures],
        data=(pictures, truth),
        metric=metric,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.3),
        tuning_criterion=TuningCriterion(objective="ops"),
    )
    expected = [
        min(len(t), (p.sum(axis=0) > 0).sum()) / max(len(t), (p.sum(axis=0) > 0).sum(), 1)
        for p, t in zip(pictures, truth, strict=True)
    ]
    assert result.baseline == pytest.approx(np.mean(expected), abs=1e-9)
    assert result.met
    assert all(len(shape) == 2 and shape[1] == 4 for shape in seen)
    assert result.full_evaluations is not None  # Samples have scores of their own.


def test_texts_are_labels() -> None:
    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    texts = ["".join("abc"[c] for c in steps) for steps in STEPS]
    texts[2] = "wrong"

    def same(output: np.ndarray, label: Any) -> bool:
        assert output.shape[0] == 1
        return "".join("abc"[c] for c in output[0].argmax(axis=1)) == label

    metric = SampleMetric(name="text", score=same, bounds=(0, 1), per_sample=True)
    for threads in (1, 2):
        evaluation = DataEvaluation((CLIPS, texts), metric, threads=threads, batch_size=3)
        scores = np.concatenate(list(evaluation.scores(fp32, range(8))))
        assert scores.tolist() == [1, 1, 0, 1, 1, 1, 1, 1]


def test_labels_may_be_anything() -> None:
    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    targets = [{"boxes": np.zeros((i, 4)), "text": str(i)} for i in range(8)]
    metric = SampleMetric(
        name="own", score=lambda output, label: len(label["boxes"]), per_sample=True
    )
    for source in ((CLIPS, targets), list(zip(CLIPS, targets, strict=True))):
        scores = list(DataEvaluation(source, metric, batch_size=3).scores(fp32, [5, 0, 7, 1]))
        assert np.concatenate(scores).tolist() == [5, 0, 7, 1]


def test_margins_of_single_samples() -> None:
    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    metric = SampleMetric(
        name="own",
        score=lambda output, label: 1.0,
        margin=lambda output, label: float(len(label)),
        per_sample=True,
    )
    evaluation = DataEvaluation((CLIPS, STEPS), metric, batch_size=3)
    margins = [m for _, m in evaluation.scores_and_margins(fp32, np.arange(8))]
    assert np.concatenate(margins).tolist() == LENGTHS  # type: ignore[arg-type]


def test_corpus_metric_of_single_samples() -> None:
    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])

    def score(outputs: Any, labels: Any) -> float:
        assert [output.shape for output in outputs] == [(1, length, 3) for length in LENGTHS]
        assert [label.tolist() for label in labels] == [steps.tolist() for steps in STEPS]
        return 0.75

    metric = CorpusMetric(name="WER", score=score, per_sample=True)
    assert DataEvaluation((CLIPS, STEPS), metric, batch_size=3)(fp32) == 0.75
    whole = CorpusMetric(name="WER", score=score)
    with pytest.raises(ValueError, match="in one shape.*With per_sample=True it gets lists"):
        DataEvaluation((CLIPS, STEPS), whole, batch_size=3)(fp32)


@pytest.mark.parametrize("value", [None, np.zeros(2), "a"])
def test_a_sample_gets_one_number(value: Any) -> None:
    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    metric = SampleMetric(name="own", score=lambda output, label: value, per_sample=True)
    with pytest.raises(
        ValueError, match="score of the metric 'own' must be one number .*sample 4"
    ):
        next(DataEvaluation((CLIPS, STEPS), metric).scores(fp32, [4]))


def test_runs_of_single_samples_have_the_fixed_batch_size() -> None:
    m = Maker()
    x = m.input("x", [4, 3])
    m.node("MatMul", [x, m.weight(3, 2)], outputs=["y"])
    fp32 = session_of(m.model(["y"]), X[:20])
    shapes = set()
    metric = SampleMetric(
        name="own", score=lambda o, label: shapes.add(o.shape) or 0.0, per_sample=True
    )
    DataEvaluation((X, Y), metric)(fp32)
    assert shapes == {(1, 2)}


# Samples that have all of the model's axes.


def frames() -> onnx.ModelProto:
    """One score for each frame of a signal: there is no axis of samples."""
    m = Maker(seed=5)
    x = m.input("signal", ["frames", 6])
    m.node("MatMul", [x, m.weight(6, 1)], name="dense", outputs=["y"])
    return m.model(["y"])


SIGNALS = samples(9, 7, 6, seed=8)


@pytest.mark.parametrize("threads", [1, 2])
def test_samples_are_whole_runs(threads: int) -> None:
    fp32 = session_of(frames(), {"signal": SIGNALS})
    outputs = np.stack([run(frames(), {"signal": signal})[0] for signal in SIGNALS])
    labels = outputs + np.arange(9)[:, None, None]
    evaluation = DataEvaluation(
        {"signal": SIGNALS, "labels": labels}, "mae", batch_size=4, threads=threads
    )
    scores = np.concatenate(list(evaluation.scores(fp32, [8, 0, 3])))
    assert scores == pytest.approx([8, 0, 3], abs=1e-5)


def test_calibration_of_whole_runs() -> None:
    spec = InputSpec("signal", np.dtype(np.float32), ("frames", 6))
    data = CalibrationData({"signal": SIGNALS}, [spec], batch_size=4)
    assert [batch["signal"].shape for batch in data] == [(7, 6)] * 9
    as_dataset = CalibrationData(LoaderSamples(DataLoader(SIGNALS)), [spec], batch_size=4)  # type: ignore[arg-type]
    assert [batch["signal"].tolist() for batch in as_dataset] == SIGNALS.tolist()
    several = CalibrationData([s[: i + 2] for i, s in enumerate(SIGNALS[:3])], [spec])
    assert [batch["signal"].shape for batch in several] == [(2, 6), (3, 6), (4, 6)]


# Without labels.


def test_sequences_of_several_lengths_need_no_labels() -> None:
    def halved(session: Any) -> Any:
        class Halved:
            def __getattr__(self, name: str) -> Any:
                return getattr(session, name)

            def run(self, names: Any, feed: Any) -> Any:
                return [-output for output in session.run(names, feed)]

        return Halved()

    fp32 = session_of(over_time(), [clip[None] for clip in CLIPS])
    outputs = [run(over_time(), {"x": clip[None]})[0][0] for clip in CLIPS]
    share = [(o.argmax(axis=1) == (-o).argmax(axis=1)).mean() for o in outputs]
    kept = SampleMetric(
        name="own",
        score=lambda output, reference: abs(output + reference).max(),
        reference="fp32",
        per_sample=True,
    )
    for source in (CLIPS, {"x": CLIPS}, Again([clip[None] for clip in CLIPS])):
        for metric, expected in (("agreement", share), ("cosine", [-1.0] * 8), (kept, [0.0] * 8)):
            evaluation = DataEvaluation(source, metric, batch_size=3)
            evaluation.for_fp32()(fp32)
            order = [6, 3, 0, 7, 1, 2, 5, 4]
            found = np.concatenate(list(evaluation.scores(halved(fp32.session), order)))
            assert found == pytest.approx([expected[i] for i in order], abs=1e-5)


def test_a_data_set_of_keras_may_be_read_for_calibration_again() -> None:
    data = CalibrationData(py_dataset(in_batches()), [SPEC])
    for _ in range(2):
        assert np.concatenate([batch["x"] for batch in data]).tolist() == X.tolist()


@pytest.mark.parametrize(
    "read",
    [open_data, lambda data: open_data(lambda: data), lambda data: CalibrationData(data, [SPEC])],
)
def test_a_generator_that_does_not_end_is_refused(
    read: Callable[[Any], Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield X[:4], Y[:4]

    monkeypatch.setattr(loaders, "_MANY_BATCHES", 10)
    monkeypatch.setattr(loaders, "_ENDLESS_BATCHES", 20)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match=r"goes on after 20 batches.*itertools\.islice"),
    ):
        read(endless())
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("10 batches of the ")
    assert "never ends" in said


@pytest.mark.parametrize("kind", SOURCES)
def test_labels_that_are_not_needed_are_left_out(kind: str) -> None:
    data = open_data(SOURCES[kind]()).without_labels()
    data.check([DATA_SPEC])
    features, labels = data.batch(np.array([22, 3]), [DATA_SPEC])
    assert np.asarray(features["x"]).tolist() == X[[22, 3]].tolist()
    assert np.shape(labels) == (2, 0)


def test_several_outputs_without_labels_say_what_is_kept() -> None:
    metric = SampleMetric(name="own", score=lambda o, r: r[:, 0], reference="fp32")
    m = Maker()
    x = m.input("x", ["N", 3])
    names = [m.node("MatMul", [x, m.weight(3, 2)], outputs=[name]) for name in ("a", "b")]
    fp32 = session_of(m.model(names), X)
    with pytest.raises(ValueError, match="several outputs .* needs keep="):
        DataEvaluation(X, metric, output_names=names).for_fp32()(fp32)


def test_images_without_labels_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(by_colour(), "model.onnx")
    Path("prepare.py").write_text(TRANSFORM)
    Path("flat").mkdir()
    for i, file in enumerate(sorted(colours(tmp_path / "images").rglob("*.png"))):
        PIL.Image.open(file).save(Path("flat") / f"{i}.png")
    command = ["tune", "model.onnx", *OPS, "--calibration", "flat", "--data", "flat", "--quiet",
               "--metric", "agreement", "--transform", "prepare.py"]  # fmt: skip
    assert parser.main(command) == exit_codes.MET, capsys.readouterr().err
    assert "FP32 1," in capsys.readouterr().out


def test_one_input_in_a_tuple_is_that_input() -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6)
    spec = InputSpec("x", np.dtype(np.float32), (None, 2))
    batches = open_data([((x[:4],), y[:4]), ((x[4:],), y[4:])])
    batches.check([spec])
    assert batches.samples == 6
    rows, labels = batches.batch(np.arange(6), [spec])
    assert np.array_equal(rows["x"], x)
    assert np.array_equal(labels, y)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ((np.zeros(2, np.float32), 1, 7), "a tuple of 3 items: leave out what is neither"),
        ((np.zeros(2, np.float32),), "a tuple of 1 item, without a label: metrics that compare"),
    ],
)
def test_samples_that_are_no_pairs_are_described(sample: tuple[Any, ...], words: str) -> None:
    data = open_data([sample, sample])
    with pytest.raises(ValueError, match=f"a pair .*but is {words}"):
        data.check([InputSpec("x", np.dtype(np.float32), (None, 2))])


def test_inputs_and_labels_in_a_list_are_to_be_a_tuple() -> None:
    with pytest.raises(ValueError, match=r"seems to hold the inputs and the labels.*a tuple"):
        open_data([X, Y])
    open_data([X[:4], X[4:8]]).without_labels().check([DATA_SPEC])  # Two batches without labels.


@pytest.mark.parametrize("read", [open_data, lambda data: list(CalibrationData(data, [SPEC]))])
@pytest.mark.parametrize("says", ["num_batches", "__len__"])
def test_a_data_set_of_keras_without_an_end_is_refused(
    read: Callable[[Any], Any], says: str
) -> None:
    data = py_dataset(in_batches())
    if says == "num_batches":
        data.num_batches = None
    else:

        def endless(_: object) -> int:
            raise TypeError("There is no end.")

        type(data).__len__ = endless
    with pytest.raises(ValueError, match=r"The Mine has no end.*for i in range\(20\)"):
        read(data)
