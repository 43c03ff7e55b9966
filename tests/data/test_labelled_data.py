"""Labelled samples that are read a batch at a time."""

from __future__ import annotations

from pathlib import Path
import tracemalloc
from typing import Any

import numpy as np
import pytest

from optuna_quant.data.inputs import InputSpec
from optuna_quant.data.labelled_data import LabelledData
from optuna_quant.data.open_labelled_data import open_labelled_data


X = np.arange(15, dtype=np.float32).reshape(5, 3)
Y = np.arange(5)
ONE = [InputSpec("x", np.dtype("float32"), (None, 3))]
TWO = [*ONE, InputSpec("mask", np.dtype("int64"), (None, "length"))]


class Dataset:
    """Gives samples one by one, and counts them."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = samples
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        assert type(index) is int
        self.read.append(index)
        return self._samples[index]


class Tensor:
    """Is no array, but can be made one, as tensors of other libraries."""

    def __init__(self, value: Any) -> None:
        self._value = np.asarray(value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._value


def folder_of(path: Path, **arrays: np.ndarray) -> Path:
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def file_of(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def source(kind: str, path: Path) -> Any:
    return {
        "arrays": lambda: {"x": X.astype(float), "y": Y},
        "lists": lambda: {"x": X.astype(float).tolist(), "y": Y.tolist()},
        "unnamed": lambda: {"x": X, "anything": Y},
        "more": lambda: {"x": X, "label": Y, "mean": np.float32(3)},
        "file": lambda: file_of(path / "data.npz", x=X, y=Y),
        "folder": lambda: folder_of(path / "data", x=X.astype(float), y=Y),
        "name of folder": lambda: str(folder_of(path / "data", x=X, y=Y)),
        "pairs": lambda: Dataset([(x, y) for x, y in zip(X, Y, strict=True)]),
        "list of pairs": lambda: [(x.tolist(), int(y)) for x, y in zip(X, Y, strict=True)],
        "tensors": lambda: Dataset([(Tensor(x), Tensor(y)) for x, y in zip(X, Y, strict=True)]),
        "named": lambda: Dataset([({"x": x}, y) for x, y in zip(X, Y, strict=True)]),
        "dicts": lambda: Dataset([{"x": x, "target": y} for x, y in zip(X, Y, strict=True)]),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["arrays", "lists", "unnamed", "more", "file", "folder", "name of folder", "pairs",
     "list of pairs", "tensors", "named", "dicts"],
)  # fmt: skip
def test_any_source_in_any_order(kind: str, tmp_path: Path) -> None:
    data = open_labelled_data(source(kind, tmp_path))
    data.check(ONE)
    assert data.samples == 5
    for indices in ([3, 1, 4], [1, 2, 3], [2], [0, 0], [4, 3, 2, 1, 0]):
        features, labels = data.batch(np.array(indices), ONE)
        assert list(features) == ["x"]
        assert features["x"].dtype == np.float32
        assert features["x"].tolist() == X[indices].tolist()
        assert labels.tolist() == indices


def test_two_inputs(tmp_path: Path) -> None:
    mask = np.ones((5, 4), dtype=np.int64)
    samples = [({"mask": m, "x": x, "id": 3}, y) for m, x, y in zip(mask, X, Y, strict=True)]
    for data in (Dataset(samples), {"mask": mask, "x": X, "labels": Y, "id": Y}):
        opened = open_labelled_data(data)
        with pytest.warns(UserWarning, match="^'id' in the evaluation data is no input") as said:
            opened.check(TWO)
            opened.check(TWO)
            features, labels = opened.batch(np.array([4, 1]), TWO)
        assert len(said) == 1
        assert list(features) == ["x", "mask"]
        assert features["mask"].shape == (2, 4)
        assert labels.tolist() == [4, 1]


def test_strings() -> None:
    specs = [InputSpec("text", np.dtype(object), (None, 1))]
    texts = np.array([["a"], ["bc"], ["d"]])
    pairs = [(text, y) for text, y in zip(texts, range(3), strict=True)]
    for data in ({"text": texts, "y": [0, 1, 2]}, Dataset(pairs)):
        opened = open_labelled_data(data)
        opened.check(specs)
        features, _ = opened.batch(np.array([2, 1]), specs)
        assert features["text"].dtype == object
        assert features["text"].tolist() == [["d"], ["bc"]]


def test_labelled_data_are_what_they_are() -> None:
    data = open_labelled_data({"x": X, "y": Y})
    assert isinstance(data, LabelledData)
    assert open_labelled_data(data) is data


def test_mapped_arrays_are_not_read_as_a_whole(tmp_path: Path) -> None:
    samples = 2000
    big = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float64, shape=(samples, 3, 500)
    )
    big[7] = 7
    big.flush()
    np.save(tmp_path / "y.npy", np.zeros(samples))
    specs = [InputSpec("x", np.dtype("float32"), (None, 3, 500))]
    tracemalloc.start()
    data = open_labelled_data(tmp_path)
    data.check(specs)
    for start in range(0, samples, 10):
        features, _ = data.batch(np.arange(start, start + 10)[::-1], specs)
        assert features["x"].max() == (7 if start == 0 else 0)
        assert type(features["x"]) is np.ndarray
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < big.nbytes / 20


def test_neighbours_are_not_copied() -> None:
    features, labels = open_labelled_data({"x": X, "y": Y}).batch(np.array([1, 2]), ONE)
    assert np.shares_memory(features["x"], X)
    assert np.shares_memory(labels, Y)


def test_dataset_is_read_only_where_needed() -> None:
    data = Dataset([(x, y) for x, y in zip(X, Y, strict=True)])
    opened = open_labelled_data(data)
    opened.check(ONE)
    assert data.read == [0]
    opened.batch(np.array([4, 2]), ONE)
    assert data.read == [0, 4, 2]


# What does not fit.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "Input 'x' is missing in the evaluation data, which holds: nothing"),
        ({"z": X, "y": Y}, r"Input 'x' is missing.*holds: z, y\. Name the arrays"),
        ({"x": X}, r"one array of labels in the evaluation data.*there are: x\."),
        ({"x": X, "a": Y, "b": Y}, "one array of labels"),
        ({"x": X, "y": Y[:4]}, "same number of samples.*x: 5, the labels: 4"),
        ({"x": X, "y": 3}, "same number of samples.*the labels: none"),
        ({"x": X[:, :2], "y": Y}, r"Input 'x'.*float32 of shape \(5, 2\).*expects float32"),
        ({"x": X[0], "y": Y}, r"Input 'x'.*of shape \(3,\)"),
        ({"x": X.astype(int), "y": Y}, "Input 'x'.*int64.*the evaluation data exactly as for"),
        ({"x": X[:0], "y": Y[:0]}, "There are no samples in the evaluation data"),
        ([], "There are no samples in the evaluation data"),
        ((X, Y), r"Sample 0 of the evaluation data must be a dict.*type ndarray"),
        ([(X[0], 1, 2)], r"Sample 0 of the evaluation data must be .* pair.* a tuple of 3 items"),
        ([(X[0, :2], 1)], r"Input 'x': sample 0.*\(1, 2\)"),
        ([(X[0].astype(int), 1)], r"Input 'x': sample 0.*int64"),
        ([({"z": X[0]}, 1)], "Input 'x' is missing in sample 0.*holds: z"),
        ([{"x": X[0]}], "one array of labels in sample 0"),
        ([([[1.0], [1.0, 2.0]], 1)], "'x' in sample 0 of the evaluation data is not an array"),
    ],
)
def test_what_does_not_fit(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_labelled_data(data).check(ONE)


def test_wrong_shape_is_found_without_a_copy(tmp_path: Path) -> None:
    big = np.broadcast_to(np.float64(0), (10**12, 4))
    data = open_labelled_data({"x": big, "y": np.broadcast_to(0, (10**12,))})
    with pytest.raises(ValueError, match="Input 'x'.*expects float32 of shape"):
        data.check(ONE)
    data = open_labelled_data({"x": big[:, :3], "y": np.broadcast_to(0, (10**12,))})
    data.check(ONE)
    assert data.samples == 10**12
    assert data.batch(np.array([10**11, 5]), ONE)[0]["x"].shape == (2, 3)


def test_one_array_for_two_inputs() -> None:
    with pytest.raises(ValueError, match="model has 2 inputs: give a dict with the keys x, mask"):
        open_labelled_data([(X[0], 1)]).check(TWO)


def test_empty_axis() -> None:
    data = {"x": X, "mask": np.zeros((5, 0), dtype=np.int64), "y": Y}
    with pytest.raises(ValueError, match=r"Input 'mask'.*is empty, with shape \(5, 0\)"):
        open_labelled_data(data).check(TWO)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "no arrays in the evaluation data"),
        ({"x": X, "y": np.float32(1)}, "'y' in the evaluation data has no sample axis"),
        ({"x": X[:0], "y": Y[:0]}, "no samples"),
    ],
)
def test_number_of_samples_that_cannot_be_told(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = open_labelled_data(data).samples


def test_samples_of_other_shapes_are_given_one_by_one() -> None:
    samples = [({"x": X[i], "mask": [1] * (2 + i % 2)}, Y[i]) for i in range(5)]
    data = open_labelled_data(Dataset(samples))
    data.check(TWO)
    same, _ = data.batch(np.array([0, 2]), TWO)
    assert np.shape(same["mask"]) == (2, 2)
    features, labels = data.batch(np.array([0, 2, 3]), TWO)
    assert [mask.tolist() for mask in features["mask"]] == [[1, 1], [1, 1], [1, 1, 1]]
    assert np.shape(features["x"]) == (3, 3)
    assert np.asarray(labels).tolist() == [0, 2, 3]
    several = open_labelled_data([(X[0], [1]), (X[0], [1, 2])])
    _, labels = several.batch(np.array([0, 1]), ONE)
    assert [label.tolist() for label in labels] == [[1], [1, 2]]


def test_sample_that_cannot_be_read_is_named() -> None:
    class Broken(Dataset):
        def __getitem__(self, index: int) -> Any:
            if index == 3:
                raise OSError("Disk full of Holes")
            return super().__getitem__(index)

    data = open_labelled_data(Broken([(x, y) for x, y in zip(X, Y, strict=True)]))
    data.check(ONE)
    with pytest.raises(ValueError, match="Sample 3 of .* cannot be read: OSError: Disk full of H"):
        data.batch(np.array([2, 3]), ONE)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file '.*no.npz'"):
        open_labelled_data(tmp_path / "no.npz")
    with pytest.raises(ValueError, match="must be an .npz file or a folder of .npy files.*a.csv"):
        open_labelled_data(tmp_path / "a.csv")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bad.npz' cannot be read"):
        open_labelled_data(tmp_path / "bad.npz")
    folder = folder_of(tmp_path / "folder")
    with pytest.raises(ValueError, match="no .npy file in the folder.*one for the labels"):
        open_labelled_data(folder)
    (folder / "x.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="x.npy' cannot be read"):
        open_labelled_data(folder)


@pytest.mark.parametrize("data", [3, iter([1]), None])
def test_what_is_no_data(data: Any) -> None:
    with pytest.raises(TypeError, match="must be a dict of arrays, a path"):
        open_labelled_data(data)
