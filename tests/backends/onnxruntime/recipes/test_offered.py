"""Which recipes and which of their values are offered for a model and a target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import residual
from onnx_models import samples
import onnxruntime as ort
import optuna
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.space.config import QuantConfig


FLOAT_OUTPUTS = "optypes_to_exclude_output_quant"


def chain() -> onnx.ModelProto:
    """A convolution, an activation and a Gemm: no tensor has two readers."""
    m = Maker()
    h = m.node("Sigmoid", [m.conv(m.input("x", ["N", 2, 4, 4]), 2, 2)])
    h = m.node("GlobalAveragePool", [h])
    return m.model([m.node("Gemm", [m.node("Flatten", [h]), m.weight(2, 3)])])


MODELS = {
    "chain": (chain(), (8, 2, 4, 4)),
    "convnet": (convnet(), (8, 2, 8, 8)),
    "residual": (residual(), (8, 3, 6, 6)),
    "attention": (attention(), (8, 5, 8)),
}


def backend_of(model: str, **options: Any) -> OnnxRuntimeBackend:
    proto, shape = MODELS[model]
    return OnnxRuntimeBackend(proto, calibration_data={"x": samples(*shape)}, **options)


@pytest.mark.parametrize("recipe", ["add_qdq_pair_to_weight", "dedicated_qdq_pair"])
@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "qnn"])
@pytest.mark.parametrize("model", MODELS)
def test_a_form_is_offered_where_it_makes_another_model(
    model: str, target: str, recipe: str
) -> None:
    backend = backend_of(model, target=target, recipes=[recipe])
    config = QuantConfig(backend.tuning_space(op_types="all").default().ops)
    fingerprints = {backend.fingerprint(config.with_recipe(recipe, v)) for v in ("off", "on")}
    assert (recipe in backend.capability().recipes) == (len(fingerprints) == 2)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    optuna.logging.enable_propagation()
    yield caplog
    optuna.logging.disable_propagation()


@pytest.mark.parametrize(
    ("recipe", "value", "reason"),
    [
        ("add_qdq_pair_to_weight", True, "'tensorrt' weights are always written so"),
        ("dedicated_qdq_pair", True, "no tensor that can be quantized has two readers"),
        (FLOAT_OUTPUTS, True, "no op has an output that is quantized with it"),
    ],
)
def test_a_named_recipe_that_is_left_out_is_explained(
    told: pytest.LogCaptureFixture, recipe: str, value: object, reason: str
) -> None:
    backend = backend_of("chain", target="tensorrt", recipes={recipe: value})
    assert backend.capability().recipes == {}
    assert f"Recipe {recipe!r} is left out, since it would change nothing: " in told.text
    assert reason in told.text


def test_op_types_that_the_model_lacks_are_explained(told: pytest.LogCaptureFixture) -> None:
    backend = backend_of("chain", recipes={FLOAT_OUTPUTS: "Add+Mul"})
    assert backend.capability().recipes == {}
    assert "what is asked for means 'off' in this model" in told.text


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (True, ("Add+Conv+GlobalAveragePool",)),
        ([False, True], ("off", "Add+Conv+GlobalAveragePool")),
        ("Add+Mul", ("Add",)),
        (["off", "Add", "Add+Mul", "Mul"], ("off", "Add")),
        ("LSTM+Mul", None),
        (False, ("off",)),
    ],
)
def test_op_types_are_those_of_the_graph(given: object, values: tuple[str, ...] | None) -> None:
    backend = backend_of("residual", recipes={FLOAT_OUTPUTS: given})
    assert backend.capability().recipes.get(FLOAT_OUTPUTS) == values


def test_targets_that_quantize_no_outputs_need_no_excluded_ones() -> None:
    backend = backend_of("residual", target="cuda", recipes=[FLOAT_OUTPUTS])
    assert backend.capability().recipes == {}


@pytest.mark.parametrize("usual", ["disable_all", "enable_basic", "enable_all"])
def test_the_level_of_the_session_options_is_the_default(usual: str) -> None:
    name = "graph_optimization_level"
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{usual.upper()}")
    levels = ["disable_all", "enable_basic", "enable_extended", "enable_all"]
    others = tuple(level for level in levels if level != usual)
    for recipes in ([name], {name: ["default", *levels]}):
        backend = backend_of("chain", session_options=options, recipes=recipes)
        assert backend.capability().recipes == {name: ("default", *others)}
    backend = backend_of("chain", session_options=options, recipes={name: [usual, others[0]]})
    assert set(backend.capability().recipes[name]) == {usual, others[0]}


def test_all_with_some_fixed() -> None:
    every = requested_recipes("all").values
    assert requested_recipes(["all"]).values == every
    assert requested_recipes({"all": True}).values == every
    more = requested_recipes(["all", "gemm_to_matmul"])
    assert dict(more.values) == {**every, "gemm_to_matmul": ("off", "on")}
    assert more.named == {"gemm_to_matmul"}
    fixed = requested_recipes({"all": True, "smooth_quant": "alpha=0.5", "equalization": False})
    assert dict(fixed.values) == {
        **every,
        "smooth_quant": ("alpha=0.5",),
        "equalization": ("off",),
    }
    assert fixed.named == {"smooth_quant", "equalization"}
    folded = requested_recipes({"all": True, "smooth_quant_args": {"alpha": [0.3, 0.4]}})
    assert folded.values["smooth_quant"] == ("off", "alpha=0.3", "alpha=0.4")
    assert list(requested_recipes({"all": False, "equalization": True}).values) == ["equalization"]
    with pytest.raises(TypeError, match="value of 'all' must be True or False, but got 'on'"):
        requested_recipes({"all": "on"})
