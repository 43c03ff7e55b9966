"""Whether the runtime executes on integers what the tables promise, wherever an op stands."""

from __future__ import annotations

from typing import Any

from neighbourhoods import ENDS
from neighbourhoods import OTHERS
from neighbourhoods import PRODUCTS
from neighbourhoods import SIDE
from neighbourhoods import SOME_TAILS
from neighbourhoods import TAILS
from neighbourhoods import WIDTH
from neighbourhoods import Neighbourhoods
from neighbourhoods import neighbourhoods
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES


MATRIX = ("n", WIDTH)
FIXED_MATRIX = (8, WIDTH)
SEQUENCE = ("n", "length", WIDTH)
FIXED_SEQUENCE = (2, 8, WIDTH)
BATCH = ("n", 8, WIDTH)
STACK = (2, 2, 8, WIDTH)
IMAGE = ("n", WIDTH, SIDE, SIDE)
FIXED_IMAGE = (2, WIDTH, SIDE, SIDE)

FEW_ENDS = ("output", "both")
OPSETS = (10, 11, 12, 13, 18, 21, 24)


def relative_errors(exact: list[Any], actual: list[Any]) -> list[float]:
    """The error of each output, over the spread of its values."""
    found = []
    for expected, value in zip(exact, actual, strict=True):
        assert expected.shape == value.shape
        error: NDArray[np.float64] = np.asarray(value - expected, np.float64)
        found.append(float(np.sqrt(np.mean(error**2)) / (expected.std() + 1e-6)))
    return found


def check(
    built: Neighbourhoods,
    *,
    op_types: str = "default",
    approach: str = "static",
    most_error: float = 0.06,
    values: bool = True,
) -> dict[str, str]:
    """Check that all ops run in the kernels of the tables; return these kernels by op."""
    options = exact_options()
    options.intra_op_num_threads = 1
    x = samples(*built.shape)
    backend = OnnxRuntimeBackend(
        built.model, calibration_data=[{"x": x}], approach=approach, session_options=options
    )
    space = backend.tuning_space(op_types=op_types)
    op_type = {op: tunable.op_type for tunable in space.tunables for op in tunable.ops}
    config = space.default()
    executed = backend.executed(config)
    for op, done in executed.items():
        promised = STATIC_RULES[op_type[op]].kernel
        if not promised:
            continue
        where = f"{built.places[op]} runs as {done.kernel}, {done.note}"
        assert done.integer, where
        assert approach == "dynamic" or done.kernel in promised, where
    if values:
        exact = run(built.model, {"x": x}, optimized=False)
        errors = relative_errors(exact, backend.quantize(config).run({"x": x}))
        outputs = [value.name for value in built.model.graph.output]
        worst = int(np.argmax(errors))
        assert errors[worst] <= most_error, f"{outputs[worst]}: {errors[worst]:.3f}"
    return {op: done.kernel for op, done in executed.items()}


@pytest.mark.parametrize(
    ("turn", "op", "shape"),
    [
        # Four turns give each tail every end: of sequences, of matrices, and of the rest three.
        (0, "MatMul", SEQUENCE),
        (1, "MatMul", FIXED_SEQUENCE),
        (2, "MatMul", BATCH),
        (3, "MatMul", STACK),
        (0, "MatMul", FIXED_MATRIX),
        (1, "MatMul", MATRIX),
        (2, "Gemm", MATRIX),
        (3, "Gemm with factors", MATRIX),
        (0, "Gemm without a bias", FIXED_MATRIX),
        (1, "MatMul, weight on the left", FIXED_MATRIX),
        (2, "MatMul, weight on the left", FIXED_SEQUENCE),
    ],
)
def test_products_run_on_integers(turn: int, op: str, shape: tuple[int | str, ...]) -> None:
    check(neighbourhoods(PRODUCTS[op], shape, turn=turn))


@pytest.mark.slow
@pytest.mark.parametrize(("op", "shape"), [("MatMul", SEQUENCE), ("MatMul", FIXED_MATRIX)])
def test_products_run_on_integers_with_every_end(op: str, shape: tuple[int | str, ...]) -> None:
    check(neighbourhoods(PRODUCTS[op], shape))


@pytest.mark.parametrize(
    ("turn", "op", "shape"),
    [
        (0, "Conv", FIXED_IMAGE),
        (1, "Conv without a bias", IMAGE),
        (0, "depthwise Conv", IMAGE),
    ],
)
def test_convolutions_run_on_integers(turn: int, op: str, shape: tuple[int | str, ...]) -> None:
    check(neighbourhoods(PRODUCTS[op], shape, ends=FEW_ENDS, turn=turn))


@pytest.mark.parametrize(
    ("op", "shape", "tails"),
    [
        # Of two shapes each has every other tail.
        ("MatMul", FIXED_MATRIX, slice(0, None, 2)),
        ("MatMul", FIXED_SEQUENCE, slice(1, None, 2)),
        ("MatMul of activations", FIXED_MATRIX, slice(0, None, 2)),
        ("MatMul of activations", SEQUENCE, slice(1, None, 2)),
        ("Gemm", MATRIX, slice(None)),
        ("Conv", IMAGE, slice(None)),
    ],
)
def test_all_ops_at_once_run_on_integers(
    op: str, shape: tuple[int | str, ...], tails: slice
) -> None:
    known = [tail for tail in TAILS if not tail.startswith("bias, large")]
    built = neighbourhoods(PRODUCTS[op], shape, tails=known[tails], ends=("both",))
    check(built, op_types="all", most_error=0.2)


@pytest.mark.parametrize("shape", [FIXED_MATRIX, SEQUENCE, FIXED_SEQUENCE])
@pytest.mark.parametrize("known", ["computed", "unknown"])
def test_shapes_that_only_the_runtime_knows(known: str, shape: tuple[int | str, ...]) -> None:
    op = PRODUCTS[f"MatMul behind {known} shapes"]
    check(neighbourhoods(op, shape, tails=SOME_TAILS, ends=("output", "op")))


IN_OPSETS = [
    ("MatMul", FIXED_MATRIX),
    ("MatMul", FIXED_SEQUENCE),
    ("MatMul, weight on the left", FIXED_MATRIX),
    ("Gemm", MATRIX),
    ("Gemm without a bias", MATRIX),
    ("Conv", IMAGE),
]
NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.parametrize(
    ("op", "shape", "opset", "turn"),
    [
        # Every op in the oldest and the newest one, and every one with a product and with a Conv.
        pytest.param(
            op,
            shape,
            opset,
            turn,
            marks=()
            if opset in (OPSETS[0], NEWEST) or (op, shape) in (IN_OPSETS[0], IN_OPSETS[-1])
            else pytest.mark.slow,
        )
        for op, shape in IN_OPSETS
        for turn, opset in enumerate(dict.fromkeys((*OPSETS, NEWEST)))
    ],
)
def test_opsets(op: str, shape: tuple[int | str, ...], opset: int, turn: int) -> None:
    ends = ("output", "op")
    built = neighbourhoods(
        PRODUCTS[op], shape, opset=opset, tails=SOME_TAILS, ends=ends, turn=turn
    )
    check(built)


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        # In the fast set every op is in one of the two.
        pytest.param(op, shape, marks=() if (i + j) % 2 == 0 else pytest.mark.slow)
        for i, op in enumerate(OTHERS)
        for j, shape in enumerate((FIXED_MATRIX, IMAGE))
    ],
)
def test_other_ops_on_request(op: str, shape: tuple[int | str, ...]) -> None:
    is_image = shape == IMAGE
    if "Pool" in op and not is_image:
        shape = FIXED_IMAGE
    product = PRODUCTS["Conv" if len(shape) == 4 else "MatMul"]
    tails = [*SOME_TAILS, "Transpose, Transpose", "Relu", "Clip", "other reader", "Sigmoid"]
    built = neighbourhoods(
        OTHERS[op],
        shape,
        tails=tails,
        ends=FEW_ENDS,
        turn=int(is_image),
        before=product if is_image else None,
        behind=product,
    )
    # Where rounding decides which element is the greatest, values say nothing.
    kernels = check(built, op_types="all", most_error=0.25, values=op != "ArgMax")
    own = op.split(",")[0]
    assert any(kernel in STATIC_RULES[own].kernel for kernel in kernels.values())


@pytest.mark.parametrize(("turn", "op"), enumerate(["MatMul", "Gemm", "Gemm without a bias"]))
def test_dynamic_products_run_on_integers(turn: int, op: str) -> None:
    built = neighbourhoods(PRODUCTS[op], FIXED_MATRIX, ends=ENDS[:2], turn=turn)
    check(built, approach="dynamic")


def test_every_kernel_of_the_tables_is_tried() -> None:
    tried = {"Conv", "Gemm", "MatMul", "MatMulActivations", *(op.split(",")[0] for op in OTHERS)}
    # Whole layers of the runtime's own have tests of their own.
    promised = {name for name, rule in STATIC_RULES.items() if rule.kernel and not rule.layer}
    assert promised == tried


def test_the_check_sees_what_runs_in_floats() -> None:
    built = neighbourhoods(PRODUCTS["MatMul"], FIXED_MATRIX, tails=["nothing"], ends=["output"])
    options = exact_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    backend = OnnxRuntimeBackend(
        built.model, calibration_data=samples(*built.shape), session_options=options
    )
    (done,) = backend.executed(backend.tuning_space().default()).values()
    assert not done.integer
