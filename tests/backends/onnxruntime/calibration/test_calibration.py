from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import textwrap
from typing import Any
from typing import cast
import warnings

from forked_scripts import written_by
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper
import onnxruntime
import pytest
from zygote import Zygote

from optuna_quant.backends.calibration.cache import CalibrationCache
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.calibration.statistics_bytes import pack
from optuna_quant.backends.calibration.statistics_bytes import unpack
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics
from optuna_quant.backends.onnxruntime.calibration.calibration import ALL
from optuna_quant.backends.onnxruntime.calibration.calibration import collect_statistics
from optuna_quant.backends.onnxruntime.model.content import model_fingerprint
from optuna_quant.backends.onnxruntime.model.content import serialized
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.ranges.histogram import Histogram
from optuna_quant.backends.ranges.histogram import StreamingHistogram
from optuna_quant.backends.ranges.ranges import compute_range
from optuna_quant.backends.ranges.tensor_range import NoRangeError


Array = NDArray[Any]
CPU = ["CPUExecutionProvider"]
WEIGHT = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)


def build(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    weights: dict[str, Array],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def small_model(batch: int | str = "batch", weight: Array = WEIGHT) -> onnx.ModelProto:
    """X (batch, 3) -> matmul -> relu -> double, with a shape computed on the side."""
    return build(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="matmul"),
            helper.make_node("Relu", ["product"], ["positive"], name="relu"),
            helper.make_node("Shape", ["positive"], ["shape"], name="shape"),
            helper.make_node("Add", ["positive", "positive"], ["double"], name="add"),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        ["double", "positive"],
        {"w": weight},
    )


def text_model() -> onnx.ModelProto:
    """Two inputs, ids (batch, length) and mask (batch, length), two outputs."""
    return build(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"], name="gather"),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"], name="unsqueeze"),
            helper.make_node("Mul", ["embedded", "column"], ["masked"], name="mul"),
            helper.make_node("ReduceMean", ["masked"], ["pooled"], axes=[1], name="pool"),
        ],
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", "length"]),
        ],
        ["masked", "pooled"],
        {
            "table": np.random.default_rng(2).standard_normal((11, 4)).astype(np.float32),
            "last": np.array([-1], dtype=np.int64),
        },
    )


def rows(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((samples, 3)).astype(np.float32)


def data_for(model: onnx.ModelProto, data: object, batch_size: int = 4) -> CalibrationData:
    return CalibrationData(data, input_specs(model), batch_size=batch_size)


def histogram_of(values: Array) -> Histogram:
    stream = StreamingHistogram("t")
    stream.update(values)
    return stream.snapshot()


class CountingData(CalibrationData):
    """Counts how often the data are read for the model (fingerprints apart)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches_read = 0

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for feed in super().__iter__():
            self.batches_read += 1
            yield feed


def test_statistics_are_those_of_every_value_of_every_tensor() -> None:
    model, x = small_model(), rows(10)
    tensors = ["x", "w", "product", "positive", "double"]
    result = collect_statistics(model, tensors, data_for(model, x), [10])
    product = (x[:, None, :] * WEIGHT.T).sum(axis=2, dtype=np.float32)
    assert list(result) == [10]
    statistics = result[10]
    assert statistics.samples == 10
    assert set(statistics.histograms) == set(tensors)
    assert statistics.histogram("x") == histogram_of(x)
    assert statistics.histogram("w") == histogram_of(WEIGHT)
    for tensor, expected in (
        ("product", product),
        ("positive", np.maximum(product, 0)),
        ("double", 2 * np.maximum(product, 0)),
    ):
        found = statistics.histogram(tensor)
        assert found.count == expected.size
        assert found.min == pytest.approx(expected.min(), rel=1e-5)
        assert found.max == pytest.approx(expected.max(), rel=1e-5)
    zeros = int((product <= 0).sum())
    assert statistics.histogram("positive").zeros == zeros > 0


def test_statistics_do_not_depend_on_batches() -> None:
    model, x = small_model(), rows(23)
    tensors = ["x", "positive"]
    found = [
        collect_statistics(model, tensors, data_for(model, data, batch_size), [23])[23]
        for data, batch_size in ((x, 1), (x, 7), (x, 32), ([x[:2], x[2:20], x[20:]], 1))
    ]
    assert all(other.histograms == found[0].histograms for other in found[1:])


@pytest.mark.parametrize("batch_size", [4, 5, 32])
def test_sizes_are_prefixes_and_cost_one_pass(batch_size: int) -> None:
    model, x = small_model(), rows(40)
    data = CountingData(x, input_specs(model), batch_size=batch_size)
    sizes = [30, 6, 7, 40]
    result = collect_statistics(model, ["x", "product"], data, sizes)
    assert list(result) == sorted(sizes)
    assert data.batches_read == -(-40 // batch_size)
    for size, statistics in result.items():
        assert statistics.samples == size
        assert statistics.histogram("x") == histogram_of(x[:size])
        assert statistics.histogram("product").count == size * 5


def test_sizes_round_up_with_a_fixed_batch() -> None:
    model, x = small_model(batch=4), rows(12)
    result = collect_statistics(model, ["x", "double"], data_for(model, x), [3, 6, 12])
    assert [result[size].samples for size in (3, 6, 12)] == [4, 8, 12]
    assert result[6].histogram("x") == histogram_of(x[:8])


def test_size_beyond_the_data_uses_all_with_a_warning() -> None:
    model, x = small_model(), rows(9)
    with pytest.warns(UserWarning, match="size is 100, but the data hold only 9 samples"):
        result = collect_statistics(model, ["x"], data_for(model, x), [5, 100])
    assert (result[5].samples, result[100].samples) == (5, 9)
    assert result[100].histogram("x") == histogram_of(x)


def test_several_inputs_with_batches_of_different_shapes() -> None:
    model = text_model()
    rng = np.random.default_rng(3)
    batches = [
        {"ids": rng.integers(0, 11, shape), "mask": np.ones(shape, dtype=np.float32)}
        for shape in ((4, 6), (4, 9), (2, 3))
    ]
    tensors = ["ids", "mask", "table", "last", "embedded", "column", "masked", "pooled"]
    result = collect_statistics(model, tensors, data_for(model, batches), [5, 10])
    # Integer tensors have no histogram, whether inputs or initializers.
    assert set(result[10].histograms) == set(tensors) - {"ids", "last"}
    assert result[10].histogram("embedded").count == (24 + 36 + 6) * 4
    assert result[5].histogram("mask").count == 24 + 9
    assert result[5].samples == 5


def test_float16_and_float64_tensors() -> None:
    model = build(
        [
            helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["x"], ["double"], to=TensorProto.DOUBLE),
            helper.make_node("Cast", ["double"], ["y"], to=TensorProto.FLOAT),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        ["y"],
        {},
    )
    x = rows(5)
    histograms = collect_statistics(model, ["half", "double"], data_for(model, x), [5])[5]
    assert histograms.histogram("half") == histogram_of(x.astype(np.float16))
    assert histograms.histogram("double") == histogram_of(x)


def test_model_is_not_changed() -> None:
    model = small_model()
    before = model.SerializeToString(deterministic=True)
    collect_statistics(model, ["product"], data_for(model, rows(3)), [3])
    assert model.SerializeToString(deterministic=True) == before


def test_no_tensor_to_compute_needs_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    model, x = small_model(), rows(5)
    result = collect_statistics(model, ["x", "w"], data_for(model, x), [5])
    assert set(result[5].histograms) == {"x", "w"}


def test_only_a_size_that_was_asked_for_is_warned_of() -> None:
    model, x = small_model(), rows(5)
    with pytest.warns(UserWarning, match="size is 9, but the data hold only 5") as warned:
        data = data_for(model, x)
        collect_statistics(model, ["x"], data, [9, ALL])
        collect_statistics(model, ["w"], data, [9])  # As for the graph of a recipe.
    assert len(warned) == 1


def test_unknown_tensor_is_named_with_close_ones() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=r"no tensor 'prodct'\. Did you mean 'product'"):
        collect_statistics(model, ["x", "prodct"], data_for(model, rows(3)), [3])
    with pytest.raises(ValueError, match="No calibration sampling size"):
        collect_statistics(model, ["x"], data_for(model, rows(3)), [])


def test_tensor_inside_a_subgraph_is_no_tensor_of_the_model() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    model = build(
        [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        ["y"],
        {"yes": np.array(True)},
    )
    data = data_for(model, rows(4))
    assert collect_statistics(model, ["y"], data, [4])[4].histogram("y").count == 12
    with pytest.raises(ValueError, match="main graph has no tensor 'inner'"):
        collect_statistics(model, ["inner"], data, [4])


def test_non_finite_activation_has_no_range_and_spoils_no_other() -> None:
    model, x = small_model(), rows(10)
    x[6] = 3e38
    found = collect_statistics(model, ["product", "x"], data_for(model, x), [4, 10])
    assert found[4].problem("product") is None
    assert found[10].histogram("x").count == x.size
    message = r"'product' holds .* Seen in calibration sample 6\."
    with pytest.raises(NoRangeError, match=message) as caught:
        found[10].range("product", "minmax", "uint8", "asym")
    assert caught.value.tensor == "product"
    with pytest.raises(NoRangeError, match=message):
        found[10].histogram("product")


def test_why_there_is_no_range_is_kept_with_the_statistics(tmp_path: Path) -> None:
    model, x = small_model(), rows(10)
    x[6] = 3e38
    cache = CalibrationCache(tmp_path)
    wanted = ["product", "x"]
    first, again = (
        collect_statistics(model, wanted, data_for(model, x), [10], cache=cache)[10]
        for _ in range(2)
    )
    (sent,) = unpack(pack("key", {10: first}), "key").values()
    assert "Seen in" in first.unusable["product"]
    for other in (again, sent):
        assert other.unusable == first.unusable
        assert other.histograms.keys() == {"x"}


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([], "is empty"),
        ([0.0, -0.0], "is zero"),
        ([1e-38, 0.0], "is zero"),
        ([1.0, -3.4028235e38], r"values as large as 3.4e\+38, which stand for infinity"),
    ],
)
def test_what_gives_no_range(values: list[float], seen: str) -> None:
    stream = StreamingHistogram()
    stream.update(np.array(values, np.float32))
    statistics = CalibrationStatistics({"t": stream.snapshot()}, 1)
    with pytest.raises(NoRangeError, match=f"Tensor 't' .*{seen}.* in all calibration samples"):
        statistics.range("t", "minmax", "uint8", "asym")


@pytest.mark.parametrize("values", [[1e-30], [-1e29], [-10000.0, 0.0]])
def test_what_gives_a_range(values: list[float]) -> None:
    stream = StreamingHistogram()
    stream.update(np.array(values, np.float32))
    low, high = CalibrationStatistics({"t": stream.snapshot()}, 1).range(
        "t", "minmax", "uint8", "asym"
    )
    exact = np.array(values, np.float32)
    assert (low, high) == (min(0.0, float(exact.min())), max(0.0, float(exact.max())))


def test_failing_model_tells_samples_and_shapes() -> None:
    model = build(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        ["y"],
        {"shape": np.array([4, 3], dtype=np.int64)},
    )
    with pytest.raises(RuntimeError, match=r"samples 4 to 5, with inputs of shape .*\(2, 3\)"):
        collect_statistics(model, ["y"], data_for(model, rows(6)), [6])


def test_session_options_are_used_and_put_back(tmp_path: Path) -> None:
    model = small_model()
    options = onnxruntime.SessionOptions()
    written = str(tmp_path / "optimized.onnx")
    options.optimized_model_filepath = written
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    data = data_for(model, rows(3))
    collect_statistics(model, ["product"], data, [3], sessions=SessionMaker(CPU, options))
    assert options.optimized_model_filepath == written
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert not os.path.exists(written)


@pytest.fixture
def external(tmp_path: Path) -> tuple[onnx.ModelProto, Path]:
    """A model whose weights (256 KiB) lie in a file beside it, and that directory."""
    weight = np.random.default_rng(4).standard_normal((3, 1 << 14)).astype(np.float32)
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    onnx.save(
        small_model(weight=weight),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return onnx.load(path, load_external_data=False), path.parent


@pytest.mark.parametrize("own_options", [False, True])
def test_external_data_stay_where_they_are(
    external: tuple[onnx.ModelProto, Path], own_options: bool
) -> None:
    model, folder = external
    loaded = onnx.load(folder / "model.onnx")
    tensors, x = ["w", "product"], rows(6)
    options = onnxruntime.SessionOptions() if own_options else None
    found = collect_statistics(
        model,
        tensors,
        data_for(model, x),
        [6],
        base_dir=folder,
        sessions=SessionMaker(CPU, options),
    )
    expected = collect_statistics(loaded, tensors, data_for(loaded, x), [6])
    assert found[6].histograms == expected[6].histograms
    if options is not None:  # still good for a model elsewhere
        onnxruntime.InferenceSession(str(folder / "model.onnx"), options)


def test_external_data_need_base_dir(external: tuple[onnx.ModelProto, Path]) -> None:
    model, _ = external
    with pytest.raises(ValueError, match="external data; pass base_dir"):
        collect_statistics(model, ["product"], data_for(model, rows(3)), [3])


def test_model_fingerprint_follows_content(external: tuple[onnx.ModelProto, Path]) -> None:
    model, folder = external
    assert model_fingerprint(small_model(), None) == model_fingerprint(small_model(), None)
    assert model_fingerprint(small_model(), None) != model_fingerprint(
        small_model(weight=WEIGHT + 1), None
    )
    first = model_fingerprint(model, folder)
    assert model_fingerprint(model, folder) == first
    weights = folder / "weights.bin"
    status = weights.stat()
    # Other weights of the same size and time, as two checkpoints from one archive can be.
    weights.write_bytes(bytes(status.st_size))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model_fingerprint(model, folder) != first
    # The same content, written again.
    second = model_fingerprint(model, folder)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert model_fingerprint(model, folder) != second


def test_model_too_large_to_serialize_tells_the_cure() -> None:
    class Large:
        def SerializeToString(self, *, deterministic: bool) -> bytes:
            raise RuntimeError("Failed to serialize proto")

    with pytest.raises(ValueError, match="over 2 GB its weights must be in external data"):
        serialized(cast(onnx.ModelProto, Large()))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_mean_extremes_are_those_of_each_sample(batch_size: int) -> None:
    """For each calibration size, whatever the batches; as NumPy computes them."""
    model, x = small_model(), rows(10)
    data = data_for(model, x, batch_size)
    found = collect_statistics(model, ["x", "product"], data, [4, 10])
    product = x @ WEIGHT
    for size in (4, 10):
        low, high = found[size].range("x", "mean_minmax", "uint8", "asym")
        assert low == pytest.approx(x[:size].min(axis=1).mean(dtype=np.float64), rel=1e-12)
        assert high == pytest.approx(x[:size].max(axis=1).mean(dtype=np.float64), rel=1e-12)
        magnitude = np.abs(product[:size]).max(axis=1).mean(dtype=np.float64)
        low, high = found[size].range("product", "mean_minmax", "int8", "sym")
        assert -low == high == pytest.approx(magnitude, rel=1e-5)


def test_a_cache_of_another_version_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = small_model(), CalibrationCache(tmp_path)
    data = data_for(model, rows(10))
    with monkeypatch.context() as earlier:
        keys = "optuna_quant.backends.onnxruntime.calibration.statistics_keys"
        earlier.setattr(f"{keys}._FORMAT_VERSION", 1)
        collect_statistics(model, ["x"], data, [10], cache=cache)
    assert len(list(tmp_path.iterdir())) == 1
    first = collect_statistics(model, ["x"], data, [10], cache=cache)[10]
    assert len(list(tmp_path.iterdir())) == 2
    again = collect_statistics(model, ["x"], data, [10], cache=cache)[10]
    assert again.extremes == first.extremes
    assert again.extremes["x"].samples == 10


def test_ranges_are_those_of_the_histogram_and_remembered() -> None:
    model = small_model()
    statistics = collect_statistics(model, ["product"], data_for(model, rows(50)), [50])[50]
    histogram = statistics.histogram("product")
    for algorithm in ("minmax", "percentile", "kl", "mse"):
        found = statistics.range("product", algorithm, "uint8", "asym")
        assert found == compute_range(histogram, algorithm, "uint8", "asym")
        assert statistics.range("product", algorithm, "uint8", "asym") is found
    wide = statistics.range("product", "percentile", "int8", "sym", percentile=100.0)
    narrow = statistics.range("product", "percentile", "int8", "sym", percentile=90.0)
    assert narrow[1] < wide[1]
    with pytest.raises(KeyError, match="no calibration statistics for tensor 'shape'"):
        statistics.range("shape", "minmax", "int8", "sym")


def test_cache_saves_the_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small_model(), rows(20)
    folder = tmp_path / "new" / "folder"
    cache = CalibrationCache(folder)
    arguments = (["x", "product", "w"], data_for(model, x), [8, 20])
    first = collect_statistics(model, *arguments, cache=cache)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    again = collect_statistics(
        small_model(), *arguments, cache=CalibrationCache(tmp_path / "new" / "folder")
    )
    assert {s: r.histograms for s, r in again.items()} == {
        s: r.histograms for s, r in first.items()
    }
    assert [again[size].samples for size in (8, 20)] == [8, 20]
    files = sorted(path.name for path in folder.iterdir())
    assert len(files) == 2
    assert all(name.startswith("calibration-") and name.endswith(".npz") for name in files)


def test_cache_is_missed_when_anything_differs(tmp_path: Path) -> None:
    model, x = small_model(), rows(20)
    cache = CalibrationCache(tmp_path)

    def calibrate(
        model: onnx.ModelProto = model,
        x: Array = x,
        tensors: tuple[str, ...] = ("product",),
        size: int = 8,
    ) -> int:
        collect_statistics(model, tensors, data_for(model, x), [size], cache=cache)
        return len(list(tmp_path.iterdir()))

    assert calibrate() == 1
    assert calibrate() == 1
    changed = x.copy()
    changed[7, 2] += 1
    assert calibrate(x=changed) == 2
    assert calibrate(tensors=("product", "x")) == 3
    assert calibrate(size=9) == 4
    assert calibrate(model=small_model(weight=WEIGHT * 2)) == 5
    beyond = x.copy()
    beyond[15] += 1
    assert calibrate(x=beyond) == 5  # the first 8 samples are the same


def test_cache_file_that_cannot_be_read_is_built_again(tmp_path: Path) -> None:
    model, x = small_model(), rows(20)
    cache = CalibrationCache(tmp_path)
    expected = collect_statistics(model, ["product"], data_for(model, x), [20], cache=cache)[20]
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = bytearray(whole)
    flipped[middle] ^= 0xFF
    for content in (b"", whole[:middle], whole[:-1], b"junk" * 100, bytes(flipped)):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="cannot be read .* calibrating again"):
            found = collect_statistics(model, ["product"], data_for(model, x), [20], cache=cache)
        assert found[20].histograms == expected.histograms
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            collect_statistics(model, ["product"], data_for(model, x), [20], cache=cache)
    assert list(tmp_path.iterdir()) == [path]


def test_cache_file_with_any_byte_changed_is_never_believed(tmp_path: Path) -> None:
    cache = CalibrationCache(tmp_path)
    statistics = CalibrationStatistics({"t": histogram_of(rows(50))}, 50)
    cache.store("key", statistics)
    path = cache.path("key")
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= 0x41
        path.write_bytes(bytes(changed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = cache.load("key")
        assert loaded is None or loaded.histograms == statistics.histograms
        assert loaded is None or loaded.samples == 50


def test_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    model = small_model()
    with pytest.warns(UserWarning, match="cannot be stored"):
        result = collect_statistics(
            model, ["x"], data_for(model, rows(3)), [3], cache=CalibrationCache(blocker)
        )
    assert result[3].samples == 3


def test_cache_is_safe_for_several_processes(zygote: Zygote, tmp_path: Path) -> None:
    script = """
        import sys, warnings
        import numpy as np
        from optuna_quant.backends.calibration.cache import CalibrationCache
        from optuna_quant.backends.calibration import tensor_statistics
        from optuna_quant.backends.ranges.histogram import StreamingHistogram

        warnings.simplefilter("error")
        histograms = {}
        for name in "abc":
            stream = StreamingHistogram(name)
            stream.update(np.random.default_rng(0).standard_normal(20_000))
            histograms[name] = stream.snapshot()
        cache = CalibrationCache(sys.argv[1])
        for _ in range(20):
            statistics = tensor_statistics.CalibrationStatistics(histograms, 5)
            cache.store("shared", statistics)
            loaded = cache.load("shared")
            assert loaded is not None and loaded.histograms == histograms
        """
    given = {"script": textwrap.dedent(script), "arguments": [str(tmp_path)]}
    workers = [zygote.start("forked_scripts:execute", **given) for _ in range(3)]
    assert zygote.join(*workers) == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["calibration-shared.npz"]


def test_peak_memory_does_not_grow_with_the_samples(zygote: Zygote) -> None:
    script = """
        import resource
        import numpy as np
        from onnx import TensorProto, helper
        from optuna_quant.backends.onnxruntime.calibration.calibration import collect_statistics
        from optuna_quant.backends.calibration.data import CalibrationData
        from optuna_quant.backends.onnxruntime.model.input_specs import input_specs

        names = [f"t{i}" for i in range(10)]
        nodes = [helper.make_node("Neg", [a], [b]) for a, b in zip(["x", *names], names)]
        shape = ["batch", 1024]
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("t9", TensorProto.FLOAT, shape)],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        batch = np.random.default_rng(0).standard_normal((32, 1024)).astype(np.float32)

        peaks = []
        for samples in (100, 5_000):

            def batches():
                for start in range(0, samples, 32):
                    yield batch[: samples - start]

            data = CalibrationData(batches, input_specs(model))
            result = collect_statistics(model, names, data, [samples])
            assert result[samples].histogram("t9").count == samples * 1024
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(*peaks)
        """
    few, many = map(int, written_by(zygote, textwrap.dedent(script)).split()[-2:])
    # All the activations of the samples would take 200 MB more.
    assert many - few < 40_000
