"""Which recipes are offered where the user leaves open which are tuned."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.recipes.equalization.equalize import equalized
from optuna_quant.backends.onnxruntime.recipes.equalization.equalize import unevenness
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES


def chain(*sizes: float) -> onnx.ModelProto:
    """Two convolutions of which the channels of the first have these sizes; ``x`` (N, 2, 8, 8)."""
    m = Maker()
    weight = np.ones((len(sizes), 2, 1, 1), np.float32)
    weight *= np.array(sizes, np.float32).reshape(-1, 1, 1, 1)
    behind = np.ones((3, len(sizes), 1, 1), np.float32)
    h = m.node("Relu", [m.node("Conv", [m.input("x", ["N", 2, 8, 8]), m.const(weight)])])
    return m.model([m.node("Conv", [h, m.const(behind)])])


def offered(model: onnx.ModelProto, *shape: int, **options: Any) -> dict[str, tuple[Any, ...]]:
    given = {"calibration_data": {"x": samples(8, *shape)}, "recipes": "auto", **options}
    return dict(OnnxRuntimeBackend(model, **given).capability().recipes)


def test_unevenness_is_the_largest_ratio_of_factors() -> None:
    graph = normalize(load_model(chain(9.0, 1.0, 3.0)))
    assert unevenness(graph) == pytest.approx(3)  # The square root of the ratio of ranges.
    assert unevenness(equalized(graph)) == pytest.approx(1)
    assert unevenness(normalize(load_model(attention()))) == 1


@pytest.mark.parametrize(
    ("least", "found"), [(1 / 15, {}), (1 / 17, {"equalization": ("off", "on")})]
)
def test_equalization_where_channels_differ_by_half_of_the_bits(
    least: float, found: dict[str, tuple[str, ...]]
) -> None:
    assert offered(chain(1.0, least), 2, 8, 8) == found


def test_nothing_without_data_to_judge_by() -> None:
    assert not offered(chain(1.0, 0.01), approach="dynamic", calibration_data=None)
    assert not offered(attention(), approach="dynamic", calibration_data=None)


@pytest.mark.parametrize(
    ("approach", "found"),
    [("static", {"smooth_quant": ("off", "alpha=0.5")}), ("dynamic", {}), ("weight_only", {})],
)
def test_smooth_quant_for_the_activations_of_transformers(
    approach: str, found: dict[str, tuple[str, ...]]
) -> None:
    assert offered(attention(), 5, 8, approach=approach) == found


def test_a_softmax_at_the_end_makes_no_transformer() -> None:
    m = Maker()
    h = m.node("MatMul", [m.input("x", ["N", 8]), m.weight(8, 4)])
    assert not offered(m.model([m.node("Softmax", [h])]), 8)


def test_what_is_named_beside_auto_is_as_it_says() -> None:
    model = chain(1.0, 0.01)
    assert offered(model, 2, 8, 8, recipes={"auto": True, "equalization": False}) == {
        "equalization": ("off",)
    }
    assert offered(model, 2, 8, 8, recipes=["auto", "weight_correction"]) == {
        "equalization": ("off", "on"),
        "weight_correction": ("off", "on"),
    }
    every = set(offered(model, 2, 8, 8, recipes={"auto": True, "all": True}))
    assert every == set(offered(model, 2, 8, 8, recipes="all"))


@pytest.mark.parametrize("none", ["none", ["none"], [], {}, None, {"auto": False}])
def test_none(none: Any) -> None:
    assert not requested_recipes(none).values
    assert not requested_recipes(none).is_auto
    assert not offered(chain(1.0, 0.01), 2, 8, 8, recipes=none)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="'none' stands alone, but got"):
        requested_recipes(["none", "equalization"])
    with pytest.raises(TypeError, match="'auto' must be True or False, but got 'yes'"):
        requested_recipes({"auto": "yes"})
    with pytest.raises(ValueError, match="Did you mean 'auto'"):
        requested_recipes("auot")


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.is_free])
def test_a_free_recipe_changes_constants_alone(name: str) -> None:
    backend = OnnxRuntimeBackend(
        chain(1.0, 0.01, 0.3), calibration_data={"x": samples(8, 2, 8, 8)}, recipes=[name]
    )
    space = backend.tuning_space()
    plain, changed = (
        [node.op_type for node in backend.quantize(config).proto.graph.node]
        for config in (space.default(), space.default().with_recipe(name, "on"))
    )
    assert plain == changed
    tables = backend.counted_costs(space).tables.values()
    assert not any(table.recipes for table in tables)
