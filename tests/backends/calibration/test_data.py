from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
import warnings

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.data.inputs import InputSpec


X = InputSpec("x", np.dtype(np.float32), ("batch", 3))
IDS = InputSpec("ids", np.dtype(np.int64), ("batch", "length"))
FIXED = InputSpec("x", np.dtype(np.float32), (4, 3))


def images(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((samples, 3)).astype(np.float32)


def shapes(data: CalibrationData) -> list[tuple[tuple[int, ...], ...]]:
    return [tuple(array.shape for array in feed.values()) for feed in data]


def test_input_specs_of_a_model() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", None, 3]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, None),
            helper.make_tensor_value_info("text", TensorProto.STRING, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(3, dtype=np.float32), "w")],
    )
    assert input_specs(helper.make_model(graph)) == (
        InputSpec("x", np.dtype(np.float32), ("batch", None, 3)),
        InputSpec("mask", np.dtype(np.bool_), None),
        InputSpec("text", np.dtype(object), ()),
    )


def test_input_specs_refuses_sequences() -> None:
    value = helper.make_tensor_sequence_value_info("boxes", TensorProto.FLOAT, None)
    graph = helper.make_graph([], "g", [value], [])
    with pytest.raises(TypeError, match="'boxes' is a sequence_type"):
        input_specs(helper.make_model(graph))


def test_whole_set_is_cut_into_batches_with_a_smaller_last_one() -> None:
    x = images(10)
    for data in (x, {"x": x}):
        batches = list(CalibrationData(data, [X], batch_size=4))
        assert [len(batch["x"]) for batch in batches] == [4, 4, 2]
        assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), x)


def test_whole_set_default_batch_is_32() -> None:
    assert shapes(CalibrationData(images(40), [X])) == [((32, 3),), ((8, 3),)]


def test_whole_set_keeps_the_fixed_batch_of_the_model() -> None:
    with pytest.warns(UserWarning, match=r"fixed batch size 4: the last 2 of 10"):
        data = CalibrationData(images(10), [FIXED], batch_size=32)
    assert shapes(data) == [((4, 3),), ((4, 3),)]
    with pytest.raises(ValueError, match="fixed batch size 4, but there are only 3"):
        CalibrationData(images(3), [FIXED])


def test_batches_of_every_form_are_the_same_feeds() -> None:
    x, ids = images(6), np.arange(12).reshape(6, 2)
    forms: list[object] = [
        {"x": x, "ids": ids},
        [{"ids": ids[:4], "x": x[:4]}, {"x": x[4:], "ids": ids[4:]}],
        [(x[:4], ids[:4]), [x[4:], ids[4:]]],
        lambda: iter([(x[:4], ids[:4]), (x[4:], ids[4:])]),
    ]
    for form in forms:
        feeds = list(CalibrationData(form, [X, IDS], batch_size=4))
        assert [list(feed) for feed in feeds] == [["x", "ids"]] * 2
        assert np.array_equal(np.concatenate([feed["x"] for feed in feeds]), x)
        assert np.array_equal(np.concatenate([feed["ids"] for feed in feeds]), ids)


def test_what_batches_have_besides_the_inputs_is_ignored_with_one_warning() -> None:
    batch = {"x": images(2), "index": np.arange(2)}
    with pytest.warns(UserWarning, match="'index' in the calibration d.* and is ignored") as said:
        data = CalibrationData([batch] * 3, [X])
        assert [list(feed) for _ in range(2) for feed in data] == [["x"]] * 6
    assert len(said) == 1


@pytest.mark.parametrize("form", ["dict", "npz", "folder", "batches"])
def test_other_columns_are_ignored_with_one_warning_in_every_form(
    form: str, tmp_path: Path
) -> None:
    arrays = {"x": images(4), "token_type_ids": np.zeros((4, 2)), "labels": np.arange(4)}
    data: object = {"dict": arrays, "batches": [arrays]}.get(form, tmp_path / form)
    if form == "npz":
        data = tmp_path / "calib.npz"
        np.savez(data, **arrays)
    elif form == "folder":
        (tmp_path / "folder").mkdir()
        for name, array in arrays.items():
            np.save(tmp_path / "folder" / name, array)
    with pytest.warns(UserWarning) as said:
        feeds = list(CalibrationData(data, [X]))
    assert [list(feed) for feed in feeds] == [["x"]]
    assert [str(each.message) for each in said] == [
        "'token_type_ids' in the calibration data is no input that the model takes from them and "
        "is ignored: those are ['x']."
    ]


@pytest.mark.parametrize("dtype", [np.int32, np.int16, np.uint8, bool])
def test_narrower_integers_and_truth_values_are_taken_as_in_evaluation_data(dtype: type) -> None:
    ids = np.array([[1, 0, 1]]).astype(dtype)
    (feed,) = CalibrationData({"ids": ids}, [IDS])
    assert feed["ids"].dtype == np.int64
    assert feed["ids"].tolist() == [[1, 0, 1]]


def test_wider_integers_are_refused_with_the_example_as_the_cure() -> None:
    narrow = InputSpec("ids", np.dtype(np.int32), IDS.shape)
    with pytest.raises(ValueError, match=r"example \(example_inputs\) of int64, or cast the data"):
        CalibrationData({"ids": np.ones((2, 3), np.int64)}, [narrow])


def test_list_of_arrays_is_a_list_of_batches_of_any_shape() -> None:
    spec = InputSpec("x", np.dtype(np.float32), ("batch", "length"))
    data = CalibrationData([np.ones((2, 5), np.float32), np.ones((1, 7), np.float32)], [spec])
    assert shapes(data) == [((2, 5),), ((1, 7),)]
    assert shapes(data) == [((2, 5),), ((1, 7),)]


def test_reiterable_object_is_read_again() -> None:
    class Loader:
        def __iter__(self) -> Iterator[NDArray[np.float32]]:
            return iter([images(2), images(1)])

    data = CalibrationData(Loader(), [X])
    assert shapes(data) == shapes(data) == [((2, 3),), ((1, 3),)]


def test_npz_is_read_and_labels_ignored(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, x=images(5), y=np.zeros(5))
    for given_path in (path, str(path)):
        assert shapes(CalibrationData(given_path, [X])) == [((5, 3),)]
    assert not recwarn


def test_npz_without_an_input_names_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, images=images(5))
    with pytest.raises(ValueError, match=r"no array for input 'x'; it holds \['images'\]"):
        CalibrationData(path, [X])
    with pytest.raises(ValueError, match=r"only \.npz files are read"):
        CalibrationData(tmp_path / "calib.csv", [X])
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        CalibrationData(tmp_path / "absent.npz", [X])


@pytest.mark.parametrize(
    "make",
    [lambda: (b for b in [images(2)]), lambda: iter([images(2)]), lambda: map(images, [1, 2])],
)
def test_one_shot_iterator_is_read_once_and_kept(make: Callable[[], object]) -> None:
    given = [batch.tolist() for batch in make()]  # type: ignore[attr-defined]
    data = CalibrationData(make(), [X])
    for _ in range(2):
        assert [batch["x"].tolist() for batch in data] == given


def test_function_that_returns_a_used_iterator_is_found_out() -> None:
    iterator = iter([images(2)])
    data = CalibrationData(lambda: iterator, [X])
    assert len(list(data)) == 1
    with pytest.raises(ValueError, match="fresh iterator at each call"):
        list(data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, "of type int; pass a dict of arrays"),
        ({"y": images(2)}, ValueError, "'x' is missing .* are \\['x'\\], .* for \\['y'\\]"),
        ({"x": images(0)}, ValueError, "empty: they hold 0 samples"),
        ({"x": np.float32(1.0)}, ValueError, "'x': the calibration data has a scalar"),
        ({"x": images(2).astype(int)}, ValueError, "is int64 .* expects float32 of shape"),
        ({"x": np.ones((2, 4), np.float32)}, ValueError, r"\(2, 4\), .* \(batch, 3\)"),
        (np.ones((2, 3, 1), np.float32), ValueError, r"\(2, 3, 1\), .* \(batch, 3\)"),
        ({"x": [[1.0], [1.0, 2.0]]}, ValueError, "'x': the calibration data is not an array"),
    ],
)
def test_bad_data_are_refused_at_once(data: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CalibrationData(data, [X])


def test_a_past_without_a_length_is_no_mistake() -> None:
    past = InputSpec("past", np.dtype(np.float32), ("batch", 2, "length", 3))
    empty = np.zeros((1, 2, 0, 3), np.float32)
    batch = {"x": images(1), "past": empty}
    assert shapes(CalibrationData([batch], [X, past])) == [((1, 3), (1, 2, 0, 3))]
    for wrong in (empty[:0], empty[:, :0]):
        with pytest.raises(ValueError, match=r"'past': calibration batch 0 is"):
            list(CalibrationData([{**batch, "past": wrong}], [X, past]))


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "they hold no batch"),
        ([images(2), 5], TypeError, "calibration batch 1 is of type int"),
        ([images(0)], ValueError, r"'x': calibration batch 0 is empty, with shape \(0, 3\)"),
        ([(images(2), 1, 2)], ValueError, "tuple of 3 items, but the model has 1 input"),
        ([{"z": images(2)}], ValueError, "'x' is missing in calibration batch 0"),
        ([np.float32(1.0)], ValueError, r"batch 0 is float32 of shape \(\), but"),
        ([images(2).astype(np.uint8)], ValueError, "uint8 of shape"),
    ],
)
def test_bad_batches_are_refused_when_read(
    batches: object, error: type[Exception], message: str
) -> None:
    data = CalibrationData(batches, [X])
    with pytest.raises(error, match=message):
        list(data)


def test_two_inputs_need_names_or_order() -> None:
    with pytest.raises(ValueError, match=r"one array, but the model has 2 inputs: .*'x', 'ids'"):
        CalibrationData(images(2), [X, IDS])
    with pytest.raises(ValueError, match="batch 0 is one array, but the model has 2 inputs"):
        list(CalibrationData([images(2)], [X, IDS]))
    with pytest.raises(ValueError, match=r"different numbers of samples: \{'x': 2"):
        CalibrationData({"x": images(2), "ids": np.ones((3, 2), int)}, [X, IDS])
    other = InputSpec("z", np.dtype(np.float32), (8, 3))
    with pytest.raises(ValueError, match="different fixed batch sizes"):
        CalibrationData({"x": images(8), "z": images(8)}, [FIXED, other])


def test_data_function_must_return_batches() -> None:
    for wrong in (images(2), {"x": images(2)}, None):
        with pytest.raises(TypeError, match="function returned a value of type"):
            list(CalibrationData(lambda value=wrong: value, [X]))


def test_model_without_inputs_and_bad_batch_size_are_refused() -> None:
    with pytest.raises(ValueError, match="has no inputs"):
        CalibrationData(images(2), [])
    with pytest.raises(ValueError, match="batch_size must be at least 1, but it is 0"):
        CalibrationData(images(2), [X], batch_size=0)


def test_float64_is_cast_with_one_warning() -> None:
    with pytest.warns(UserWarning, match="dtype float64 and are cast to the model's float32") as w:
        data = CalibrationData(images(70).astype(np.float64), [X])
        feeds = list(data)
    assert len(w) == 1
    assert all(feed["x"].dtype == np.float32 for feed in feeds)


def test_right_data_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(CalibrationData(images(70), [X]))


def test_string_inputs_are_taken() -> None:
    spec = InputSpec("text", np.dtype(object), ("batch",))
    data = CalibrationData(np.array(["a", "b"]), [spec])
    assert [feed["text"].tolist() for feed in data] == [["a", "b"]]
    other = CalibrationData(np.array(["a", "c"]), [spec])
    assert data.fingerprint() != other.fingerprint()
    with pytest.raises(ValueError, match="expects object"):
        CalibrationData(np.array([1, 2]), [spec])


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
@settings(max_examples=examples(100))
def test_pieces_are_the_prefix_cut_at_the_sizes(lengths: list[int], sizes: list[int]) -> None:
    whole = images(sum(lengths))
    data = CalibrationData(np.split(whole, np.cumsum(lengths)[:-1]), [X])
    seen, reached = 0, []
    for piece in data.pieces(sizes):
        assert piece.samples == len(piece.feed["x"]) > 0
        assert np.array_equal(piece.feed["x"], whole[seen : seen + piece.samples])
        seen += piece.samples
        assert all(size == seen for size in piece.reached)
        reached += piece.reached
    assert seen == min(max(sizes), len(whole))
    assert reached == sorted({size for size in sizes if size <= len(whole)})


@pytest.mark.parametrize(
    "specs",
    [
        [InputSpec("x", np.dtype(np.float32), (4, 3)), IDS],
        [X, InputSpec("ids", np.dtype(np.int64), ("rows", "length"))],
        [X, InputSpec("ids", np.dtype(np.int64), None)],
    ],
)
def test_pieces_round_up_where_batches_cannot_be_cut(specs: list[InputSpec]) -> None:
    batches = [(images(4), np.ones((4, 2), np.int64))] * 3
    pieces = list(CalibrationData(batches, specs).pieces([3, 4, 5]))
    assert [(piece.samples, piece.reached) for piece in pieces] == [(4, (3, 4)), (4, (5,))]


def test_pieces_of_a_scalar_first_input_count_batches() -> None:
    specs = [InputSpec("t", np.dtype(np.float32), ()), X]
    data = CalibrationData([(np.float32(1.0), images(4))] * 3, specs)
    assert [(p.samples, p.reached) for p in data.pieces([2])] == [(1, ()), (1, (2,))]


def test_pieces_of_no_size_are_refused() -> None:
    for sizes in ([], [0, 5]):
        with pytest.raises(ValueError, match="sizes must be at least 1"):
            list(CalibrationData(images(4), [X]).pieces(sizes))


def test_fingerprint_is_that_of_the_content() -> None:
    x = images(10)
    same = [
        CalibrationData(x, [X], batch_size=4),
        CalibrationData({"x": x.copy()}, [X], batch_size=4),
        CalibrationData([x[:4], x[4:8], x[8:]], [X]),
        CalibrationData(lambda: iter([{"x": x[:4]}, {"x": x[4:8]}, {"x": x[8:]}]), [X]),
        CalibrationData(np.asfortranarray(x), [X], batch_size=4),
    ]
    assert len({data.fingerprint() for data in same}) == 1
    changed = x.copy()
    changed[9, 2] = np.nextafter(changed[9, 2], np.float32(9))
    renamed = InputSpec("z", X.dtype, X.shape)
    different = [
        CalibrationData(changed, [X], batch_size=4),
        CalibrationData(x, [X], batch_size=5),
        CalibrationData(x[:9], [X], batch_size=4),
        CalibrationData(x, [renamed], batch_size=4),
        CalibrationData(
            [x[:4].view(np.int32), x[4:8].view(np.int32), x[8:].view(np.int32)],
            [InputSpec("x", np.dtype(np.int32), X.shape)],
        ),
    ]
    prints = {data.fingerprint() for data in different}
    assert len(prints | {same[0].fingerprint()}) == len(different) + 1


@given(sizes=st.lists(st.integers(1, 14), min_size=1, max_size=4))
@settings(max_examples=examples(50))
def test_fingerprints_of_prefixes_do_not_depend_on_the_other_sizes(sizes: list[int]) -> None:
    x = images(11)
    data = CalibrationData(x, [X], batch_size=4)
    assert data.fingerprints(sizes) == {
        size: CalibrationData(x[:size], [X], batch_size=4).fingerprint() for size in sizes
    }


def test_fingerprints_stop_reading_at_the_largest_size() -> None:
    read = []

    def batches() -> Iterator[NDArray[np.float32]]:
        for i in range(100):
            read.append(i)
            yield images(4, seed=i)

    CalibrationData(batches, [X]).fingerprints([3, 8])
    assert read == [0, 1]
