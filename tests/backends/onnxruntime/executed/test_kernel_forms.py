"""Every form of an operator that integers may run through computes what floats compute."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_FLOATS
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_INTEGERS
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_THROUGH
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES


Form = Callable[[Maker, str], str]
SHAPE = (4, 4, 6, 7)
LOW, HIGH = -1.0, 3.0
RNG_SEED = 7
POOL_OPSETS = (17, 19, 22)

# Steps of the output's and of the input's grid that a result may be off. A sum or a product has
# two inputs; the weights of a convolution add what their own grid loses.
STEPS = {"Conv": 12, "ConvTranspose": 12, "Mul": 8, "Gemm": 12, "MatMul": 12}
# They jump: a value on the other side is no error of a kernel.
JUMPING = {"ArgMax", "Mod", "Shrink", "Sign"}


def i64(m: Maker, *values: Any) -> str:
    return m.const(np.array(values, np.int64))


def f32(m: Maker, values: Any) -> str:
    return m.const(np.array(values, np.float32))


def plain(op_type: str, **attributes: Any) -> Form:
    return lambda m, x: m.node(op_type, [x], **attributes)


def pools(op_type: str, opsets: Sequence[int]) -> Iterator[tuple[str, int, Form]]:
    windows = [{"kernel_shape": k, "strides": s} for k, s in (((3, 3), (2, 2)), ((2, 3), (2, 1)))]
    edges: list[dict[str, Any]] = [{"pads": p} for p in ([0] * 4, [1] * 4, [0, 1, 1, 0])]
    edges += [{"auto_pad": mode} for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")]
    counted: list[dict[str, Any]] = [{}]
    if op_type == "AveragePool":
        counted.append({"count_include_pad": 1})
    for opset, window, edge, ceil, count in product(opsets, windows, edges, (0, 1), counted):
        for dilations in ({}, {"dilations": [1, 1]}, {"dilations": [2, 1]}):
            if dilations and (op_type == "AveragePool" and opset < 19):
                continue
            if "auto_pad" in edge and dilations.get("dilations") == [2, 1]:
                continue  # which the runtime does not compute in floats either
            attributes = {**window, **edge, **count, **dilations, "ceil_mode": ceil}
            yield f"{op_type} {attributes}", opset, plain(op_type, **attributes)


def convolutions() -> Iterator[tuple[str, int, Form]]:
    edges: list[dict[str, Any]] = [{"pads": p} for p in ([0] * 4, [1] * 4, [0, 2, 1, 0])]
    edges += [{"auto_pad": mode} for mode in ("SAME_UPPER", "SAME_LOWER")]
    for edge, strides, group in product(edges, ([1, 1], [2, 3]), (1, 2, 4)):
        dilations = [1, 1] if "auto_pad" in edge else [2, 1]
        attributes = {**edge, "strides": strides, "group": group, "dilations": dilations}

        def conv(m: Maker, x: str, group: int = group, a: dict[str, Any] = attributes) -> str:
            return m.node("Conv", [x, m.weight(8, 4 // group, 3, 3), m.weight(8)], **a)

        yield f"Conv {attributes}", 17, conv
    for pads, output_padding, group in product(([0] * 4, [0, 2, 1, 0]), ([0, 0], [1, 1]), (1, 2)):
        attributes = {
            "pads": pads,
            "output_padding": output_padding,
            "group": group,
            "strides": [2, 3],
        }

        def transposed(
            m: Maker, x: str, group: int = group, a: dict[str, Any] = attributes
        ) -> str:
            return m.node("ConvTranspose", [x, m.weight(4, 2, 3, 3), m.weight(2 * group)], **a)

        yield f"ConvTranspose {attributes}", 17, transposed


def elementwise() -> Iterator[tuple[str, int, Form]]:
    for op_type in ("Add", "Mul"):
        for shape in ((), (1,), (7,), (6, 7), (4, 1, 1), (1, 1, 6, 1), (1, *SHAPE[1:])):
            for first in (False, True):

                def binary(
                    m: Maker,
                    x: str,
                    op_type: str = op_type,
                    shape: tuple[int, ...] = shape,
                    first: bool = first,
                ) -> str:
                    other = f32(m, m.rng.uniform(-2, 2, shape))
                    return m.node(op_type, [other, x] if first else [x, other])

                yield f"{op_type} {shape} {first}", 17, binary
        for axis in (1, 2, 3):

            def with_reduced(m: Maker, x: str, op_type: str = op_type, axis: int = axis) -> str:
                return m.node(op_type, [x, m.node("ReduceMax", [x], axes=[axis])])

            yield f"{op_type} reduced {axis}", 17, with_reduced
    for alpha in (0.01, 1.5, -0.5):
        yield f"LeakyRelu {alpha}", 17, plain("LeakyRelu", alpha=alpha)
    for op_type in ("Sigmoid", "Abs", "GlobalAveragePool", "Relu", "Sign"):
        yield op_type, 17, plain(op_type)
    yield "Shrink", 17, plain("Shrink", bias=0.5, lambd=0.7)
    yield "Mod", 17, lambda m, x: m.node("Mod", [x, f32(m, 1.5)], fmod=1)
    for axis, opset in product((1, 2, 3, -1), (12, 13)):
        yield f"Softmax {axis}", opset, plain("Softmax", axis=axis)
    for axis in (1, 2, -1):
        yield (
            f"Concat {axis}",
            17,
            lambda m, x, a=axis: m.node("Concat", [x, m.node("Mul", [x, f32(m, -4)])], axis=a),
        )
        for last in (0, 1):
            yield f"ArgMax {axis}", 17, plain("ArgMax", axis=axis, select_last_index=last)

    def where(m: Maker, x: str, shape: tuple[int, ...], swapped: bool) -> str:
        keep = m.const(m.rng.random((4, 1, 6, 7)) > 0.5)
        other = f32(m, m.rng.uniform(-2, 2, shape))
        return m.node("Where", [keep, other, x] if swapped else [keep, x, other])

    for shape, swapped in product(((), (1,), (4, 1, 1), (1, *SHAPE[1:])), (False, True)):
        yield f"Where {shape} {swapped}", 17, lambda m, x, s=shape, w=swapped: where(m, x, s, w)


def moving() -> Iterator[tuple[str, int, Form]]:
    modes = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    rounding = ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
    for mode, how, scales in product(modes, rounding, ([1, 1, 2, 1.7], [1, 1, 0.5, 0.6])):

        def nearest(m: Maker, x: str, mode: str = mode, how: str = how, s: Any = scales) -> str:
            return m.node(
                "Resize",
                [x, "", f32(m, s)],
                coordinate_transformation_mode=mode,
                nearest_mode=how,
            )

        yield f"Resize nearest {mode} {how} {scales}", 17, nearest
    for mode, kind, scales in product(
        modes, ("linear", "cubic"), ([1, 1, 2, 1.7], [1, 1, 0.5, 0.6])
    ):

        def smooth(m: Maker, x: str, mode: str = mode, kind: str = kind, s: Any = scales) -> str:
            return m.node(
                "Resize", [x, "", f32(m, s)], mode=kind, coordinate_transformation_mode=mode
            )

        yield f"Resize {kind} {mode} {scales}", 17, smooth
    yield (
        "Resize crop",
        17,
        lambda m, x: m.node(
            "Resize",
            [x, f32(m, [0, 0, -0.2, 0.1, 1, 1, 1.1, 1.3]), f32(m, [1, 1, 2, 2])],
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=5.0,
        ),
    )
    padding = ([0, 0, 1, 1, 0, 0, 1, 1], [0, 0, -1, 1, 0, 0, 2, -1], [0, 1, 0, 0, 0, 0, 0, 2])
    for mode, pads in product(("constant", "reflect", "edge"), padding):
        for value in (None, 0.0, 1.5, 6.0) if mode == "constant" else (None,):

            def pad(m: Maker, x: str, mode: str = mode, p: Any = pads, v: Any = value) -> str:
                inputs = [x, i64(m, *p)] + ([] if v is None else [f32(m, v)])
                return m.node("Pad", inputs, mode=mode)

            yield f"Pad {mode} {pads} {value}", 18, pad
    for slices in (([0], [-1], [2], [1]), ([-1], [-99], [3], [-2]), ([-3], [99], [-1], [2])):
        yield (
            f"Slice {slices}",
            13,
            lambda m, x, s=slices: m.node("Slice", [x, *(i64(m, *part) for part in s)]),
        )
    for axis, rows in product((1, 2, -1), ([0, 2], [-1, 0], [[1, -2], [3, 0]])):
        yield (
            f"Gather {axis} {rows}",
            17,
            lambda m, x, a=axis, r=rows: m.node("Gather", [x, i64(m, *r)], axis=a),
        )
    picked = np.tile(np.array([-1, 0, 2, 1]).reshape(1, 4, 1, 1), (4, 1, 6, 7))
    yield (
        "GatherElements",
        17,
        lambda m, x: m.node("GatherElements", [x, m.const(picked)], axis=1),
    )
    yield "GatherND", 17, lambda m, x: m.node("GatherND", [x, i64(m, [0, -1], [1, 2])])
    for opset, sizes in product((11, 13, 18), (None, (1, 2, 4))):

        def split(m: Maker, x: str, opset: int = opset, sizes: Any = sizes) -> str:
            count = 2 if sizes is None else len(sizes)
            outputs = [f"part{len(m.nodes)}_{i}" for i in range(count)]
            inputs, keywords = [x], {"axis": 2 if sizes is None else -1}
            if sizes is not None and opset < 13:
                keywords["split"] = sizes
            elif sizes is not None:
                inputs.append(i64(m, *sizes))
            elif opset >= 18:
                keywords["num_outputs"] = 2
            m.node("Split", inputs, outputs=outputs, **keywords)
            return outputs[1]

        yield f"Split {sizes}", opset, split
    for op_type, axes, keep in product(("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum"),
                                       ([1], [2, 3], [-1]), (0, 1)):  # fmt: skip
        for opset in (12, 18):

            def reduced(
                m: Maker, x: str, o: str = op_type, a: Any = axes, k: int = keep, v: int = opset
            ) -> str:
                if v < 18:
                    return m.node(o, [x], axes=a, keepdims=k)
                return m.node(o, [x, i64(m, *a)], keepdims=k)

            yield f"{op_type} {axes} {keep}", opset, reduced
    for mode in ("DCR", "CRD"):
        yield f"DepthToSpace {mode}", 17, plain("DepthToSpace", blocksize=2, mode=mode)
    yield "Transpose", 17, plain("Transpose", perm=[0, 2, 3, 1])
    yield "Transpose all", 17, plain("Transpose")
    yield "Flatten", 17, plain("Flatten", axis=-1)
    yield "Expand", 17, lambda m, x: m.node("Expand", [x, i64(m, 2, 4, 4, 6, 7)])
    yield "Tile", 17, lambda m, x: m.node("Tile", [x, i64(m, 1, 2, 1, 3)])
    yield "Reshape", 17, lambda m, x: m.node("Reshape", [x, i64(m, 0, -1, 7)])
    yield (
        "Squeeze",
        17,
        lambda m, x: m.node("Squeeze", [m.node("Unsqueeze", [x, i64(m, -1)]), i64(m, 4)]),
    )
    yield "Dropout", 17, plain("Dropout")
    yield "Identity", 17, plain("Identity")
    yield (
        "SpaceToDepth",
        17,
        lambda m, x: m.node(
            "SpaceToDepth", [m.node("Pad", [x, i64(m, 0, 0, 0, 0, 0, 0, 0, 1)])], blocksize=2
        ),
    )
    kept = np.array([True, False, True, True])
    yield "Compress", 17, lambda m, x: m.node("Compress", [x, m.const(kept)], axis=1)
    yield (
        "ReverseSequence",
        17,
        lambda m, x: m.node("ReverseSequence", [x, i64(m, 2, 2, 1, 4)], batch_axis=0, time_axis=1),
    )
    yield "CenterCropPad", 18, lambda m, x: m.node("CenterCropPad", [x, i64(m, 4, 9)], axes=[2, 3])
    for low, high in ((0.0, 2.0), (-0.5, 0.7), (1.0, 2.0), (0.0, None)):
        yield (
            f"Clip {low} {high}",
            17,
            lambda m, x, lo=low, hi=high: m.node(
                "Clip", [x, f32(m, lo), *([] if hi is None else [f32(m, hi)])]
            ),
        )


@dataclass(frozen=True)
class Branches:
    """A model of several forms, which share nothing, and each of its outputs.

    Args:
        model:
            The model, with an input for each form.
        ops:
            The names of the nodes of each form.
    """

    model: onnx.ModelProto
    ops: list[set[str]]

    def feed(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return {each.name: x for each in self.model.graph.input}


def surroundings(forms: Iterable[Form], opset: int, where: str) -> Branches:
    """Forms alone, behind a convolution, or between one and a product as well."""
    m = Maker(opset, seed=RNG_SEED, ir_version=8 if opset < 21 else 10)
    outputs: dict[str, int] = {}
    ops = []
    for number, form in enumerate(forms):
        m.rng = np.random.default_rng(RNG_SEED)
        x = m.input(f"x{number}", ["N", *SHAPE[1:]])
        if where != "alone":
            kernel = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
            x = m.node("Conv", [x, m.const(kernel)])
        before = len(m.nodes)
        y = form(m, x)
        ops.append({node.name for node in m.nodes[before:]})
        if where.startswith("between"):
            column = m.node("Reshape", [y, i64(m, -1, 1)])
            y = m.node("MatMul", [column, f32(m, [[1.0]])])
        is_label = m.nodes[-1].op_type == "ArgMax"
        outputs[y] = onnx.TensorProto.INT64 if is_label else onnx.TensorProto.FLOAT
    return Branches(m.model(outputs), ops)


def quantized_outputs(
    branches: Branches, x: NDArray[np.float32], op_types: str
) -> list[NDArray[Any]] | None:
    """The outputs with all ops quantized; None if there is nothing to quantize."""
    feed = branches.feed(x)
    backend = OnnxRuntimeBackend(
        branches.model, calibration_data=feed, approach="static", session_options=exact_options()
    )
    if not backend.capability().ops:
        return None
    config = backend.tuning_space(op_types=op_types).default()
    return [np.asarray(y) for y in backend.quantize(config).run(feed)]


FAMILIES = {
    "AveragePool": list(pools("AveragePool", POOL_OPSETS)),
    "MaxPool": list(pools("MaxPool", (12, 22))),
    "convolutions": list(convolutions()),
    "elementwise": list(elementwise()),
    "moving": list(moving()),
}
WHERE = ["alone", "behind", "between, default", "between, all"]
REST = "between, all, the rest"


def some_of(family: str, where: str) -> list[tuple[str, int, Form]]:
    """The forms that are tried in a place: pools have so many that most are tried in two.

    The newest opset has the pools of the one before; there only each third is tried in two, and
    the rest among the slow tests.
    """
    forms = FAMILIES[family]
    if "Pool" not in family:
        return forms
    rest = [f for i, f in enumerate(forms) if f[1] == POOL_OPSETS[-1] and i % 3]
    if where == REST:
        return rest
    if where == "between, all":
        return [form for form in forms if form not in rest]
    return forms[WHERE.index(where) :: len(WHERE) - 1]


def test_every_operator_of_the_tables_is_tried() -> None:
    tried = {name.split()[0] for forms in FAMILIES.values() for name, _, _ in forms}
    tables = {*STATIC_RULES, *PASS_THROUGH, *PASS_INTEGERS, *PASS_FLOATS}
    # Products have no attributes that change what they are; whole layers have tests of their own.
    other = {"Gemm", "MatMul", "MatMulActivations", "Attention", "EmbedLayerNormalization"}
    assert tables - other - {"Unsqueeze"} <= tried


@pytest.mark.parametrize(
    ("where", "family"),
    [
        *product(WHERE, FAMILIES),
        *(
            pytest.param(REST, family, marks=pytest.mark.slow)
            for family in ("AveragePool", "MaxPool")
        ),
    ],
)
def test_integers_compute_what_floats_compute(family: str, where: str) -> None:
    x = np.random.default_rng(RNG_SEED).uniform(LOW, HIGH, SHAPE).astype(np.float32)
    by_opset: dict[int, list[tuple[str, Form]]] = {}
    for name, opset, form in some_of(family, where):
        if name.startswith("ArgMax") and where.startswith("between"):
            continue  # gives no floats
        by_opset.setdefault(opset, []).append((name, form))
    for opset, forms in by_opset.items():
        branches = surroundings([form for _, form in forms], opset, where)
        op_types = "default" if where == "between, default" else "all"
        found = quantized_outputs(branches, x, op_types)
        if found is None:
            assert where == "alone"
            continue
        exact = run(branches.model, branches.feed(x), optimized=False)
        for (name, _), want, got in zip(forms, exact, found, strict=True):
            check_form(f"{name}, opset {opset}", want, got)


def check_form(name: str, want: NDArray[Any], got: NDArray[Any]) -> None:
    assert got.shape == want.shape, name
    op_type = name.split()[0].rstrip(",")
    if op_type in JUMPING:
        # Nearly all values are the same; those that jump, by no more than the range.
        apart = np.abs(got - want) > 0.1
        assert apart.mean() <= 0.1, name
        return
    step = (max(want.max(), 0.0) - min(want.min(), 0.0)) / 255
    allowed = STEPS.get(op_type, 4) * step + 2 * (HIGH - LOW) / 255
    assert np.abs(got - want).max() <= allowed, name


def average(x: NDArray[Any], pad: int, stride: int) -> NDArray[Any]:
    """Windows of 3 from corner to corner, the last ones cut at the end of the padded input."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (-(-(size - 3) // stride) + 1 for size in padded.shape[2:])
    result = np.zeros((*x.shape[:2], rows, columns))
    for i, j in product(range(rows), range(columns)):
        window = padded[:, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
        result[:, :, i, j] = window.mean((2, 3))
    return result


@pytest.mark.parametrize("where", ["behind", "between, all", "between, default"])
def test_average_that_counts_pads_and_cuts_windows(where: str) -> None:
    x = np.random.default_rng(0).uniform(1, 4, SHAPE).astype(np.float32)
    form = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
    forms = [plain("AveragePool", pads=[pad] * 4, **form) for pad in (0, 1)]
    op_types = "default" if "default" in where else "all"
    found = quantized_outputs(surroundings(forms, 19, where), x, op_types)
    assert found is not None
    for pad, got in enumerate(found):
        want = average(x, pad, 2).reshape((-1, 1) if where.startswith("between") else (4, 4, -1))
        error = np.abs(got.reshape(want.shape) - want).max()
        assert error <= 3 * want.max() / 255, pad


@pytest.mark.parametrize("opset", POOL_OPSETS)
def test_forms_without_an_integer_kernel_are_not_offered(opset: int) -> None:
    names, _, forms = zip(*pools("AveragePool", [opset]), strict=True)
    branches = surroundings(forms, opset, "alone")
    x = branches.feed(np.ones(SHAPE, np.float32))
    backend = OnnxRuntimeBackend(branches.model, calibration_data=x, approach="static")
    offered = {op.name for op in backend.capability().ops}
    wrong = {
        name
        for name in names
        if "[2, 1]" in name or ("count_include_pad" in name and "'ceil_mode': 1" in name)
    }
    assert wrong
    not_offered = {
        name for name, ops in zip(names, branches.ops, strict=True) if not ops & offered
    }
    assert not_offered == wrong
