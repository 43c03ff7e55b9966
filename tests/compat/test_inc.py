"""Configurations of neural-compressor 2.x, as the arguments of tune that they stand for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any
import warnings

import numpy as np
import onnx_models
import pytest

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.recipe import SmoothQuant
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import OP_TYPES
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import AutoAlpha
from optuna_quant.compat import _inc_recipes
from optuna_quant.compat import inc
from optuna_quant.criteria import AccuracyCriterion


class PostTrainingQuantConfig:
    """What the reader sees of neural-compressor's own: attributes, and the long approach."""

    def __init__(self, **fields: Any) -> None:
        self.approach = "post_training_static_quant"
        self.calibration_sampling_size = [100]
        self.recipes = {
            "smooth_quant": False, "smooth_quant_args": {}, "layer_wise_quant": False,
            "fast_bias_correction": False, "weight_correction": False, "gemm_to_matmul": True,
            "graph_optimization_level": None, "first_conv_or_matmul_quantization": True,
            "optypes_to_exclude_output_quant": [], "rtn_args": {},
        }  # fmt: skip
        self.accuracy_criterion = Accuracy()
        self.tuning_criterion = Tuning()
        self.quant_level = "auto"
        vars(self).update(fields)


class Accuracy:
    higher_is_better, criterion, tolerable_loss = False, "absolute", 0.05


class Tuning:
    strategy, strategy_kwargs, timeout, max_trials = "basic", None, 0, 100
    objective = ["performance"]  # noqa: RUF012


def warned(conf: object) -> tuple[dict[str, Any], list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = inc.load(conf)
    return found, [str(each.message) for each in caught]


def test_defaults_are_the_defaults() -> None:
    found, said = warned(PostTrainingQuantConfig())
    assert said == []
    assert found == {
        "approach": "static",
        "quant_level": "auto",
        "higher_is_better": False,
        "criterion": "absolute",
        "tolerable_loss": 0.05,
        "timeout": 0,
        "max_trials": 100,
    }


def test_every_field_has_its_place() -> None:
    kinds = {"Conv": {"weight": {"granularity": ["per_channel"]}}}
    found, said = warned(
        PostTrainingQuantConfig(
            approach="post_training_auto_quant",
            quant_level=1,
            calibration_sampling_size=[50, 200],
            op_type_dict=kinds,
            op_name_dict={"fc": {"mode": ["fp32"]}},
            reduce_range=True,
            backend="onnxrt_trt_ep",
            recipes={"smooth_quant": True, "smooth_quant_args": {"alpha": [0.3, 0.5]}},
        )
    )
    assert said == []
    assert found == {
        "approach": "auto",
        "quant_level": 1,
        "strategy": "basic",
        "higher_is_better": False,
        "criterion": "absolute",
        "tolerable_loss": 0.05,
        "timeout": 0,
        "max_trials": 100,
        "calibration_sizes": [50, 200],
        "op_type_dict": kinds,
        "op_name_dict": {"fc": {"mode": ["fp32"]}},
        "reduce_range": True,
        "target": "tensorrt",
        "recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.3, 0.5]}},
    }


@pytest.mark.parametrize(
    ("level", "strategy", "options"),
    [
        (0, "basic", {"quant_level": 0}),
        (1, "mse_v2", {"quant_level": 1, "strategy": "mse_v2"}),
        ("auto", "basic", {"strategy": "basic"}),
        ("auto", "tpe", {"strategy": "tpe"}),
        (1, "sigopt", {"quant_level": 1, "strategy": "tpe"}),
    ],
)
@pytest.mark.filterwarnings("ignore:neural-compressor configuration")
def test_levels_and_strategies(level: object, strategy: str, options: dict[str, Any]) -> None:
    found = inc.load({"quant_level": level, "tuning_criterion": {"strategy": strategy}})
    assert {k: v for k, v in found.items() if k in ("quant_level", "strategy")} == options


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("performance", None),
        (["performance"], None),
        (["modelsize"], "size"),
        ({"objective": ["performance", "modelsize"], "weight": [0.1, 0.9]},
         {"latency": 0.1, "size": 0.9}),
        (["performance", "footprint"], {"latency": 1.0, "size": 1.0}),
    ],
)  # fmt: skip
def test_objectives(objective: object, expected: object) -> None:
    found = inc.load({"tuning_criterion": {"objective": objective}})
    assert found.get("objective") == expected


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"quant_format": "QOperator"}, "quant_format='QOperator'"),
        ({"diagnosis": True}, "diagnosis=True: use result.report()"),
        ({"backend": "ipex"}, "backend='ipex' is not one of ONNX Runtime"),
        ({"device": "npu"}, "device='npu': give target="),
        ({"tuning_criterion": {"timeout": 60}}, "timeout=60: neural-compressor 2 searched"),
        ({"tuning_criterion": {"objective": "accuracy"}}, "objective='accuracy' is left out"),
        ({"recipes": {"layer_wise_quant": True}}, "recipes: layer_wise_quant is left out"),
        ({"recipes": {"rtn_args": {"ratios": {}}}}, "rtn_args is left out: its settings are fix"),
        ({"recipes": {"awq_args": {"x": 1}}}, "awq_args is left out: its settings are fixed"),
        ({"recipes": {"gptq_args": {"percdamp": 0.1}}}, "algorithm 'gptq_act', 'gptq_mse' or"),
        ({"recipes": {"teq_args": {"x": 1}}}, "there is no TEQ here; name the algorithm 'gptq'"),
        ({"excluded_precisions": ["int8"]}, "'int8' cannot be excluded"),
    ],
)
def test_what_is_not_here_is_said_once(conf: dict[str, Any], message: str) -> None:
    _, said = warned(conf)
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize(
    ("conf", "error", "message"),
    [
        ({"aproach": "static"}, ValueError, "There is no field 'aproach' .* mean 'approach'"),
        ({"approach": "qat"}, ValueError, "approach must be"),
        ({"accuracy_criterion": {"tolerable": 1}}, ValueError, "accuracy_criterion has no field"),
        ({"recipes": {"smoothquant": True}}, ValueError, "no recipe 'smoothquant'.* 'smooth_qu"),
        ({"tuning_criterion": {"objective": "speed"}}, ValueError, "objective must be among"),
        ({"tuning_criterion": {"objective": 5}}, ValueError, "a list of names, but got 5"),
        (
            {"tuning_criterion": {"objective": {"objective": ["performance"], "weight": [1, 2]}}},
            ValueError,
            r"there are 2 \(\[1, 2\]\) for 1 \(\['performance'\]\)",
        ),
        ("conf.yaml", TypeError, "must be a PostTrainingQuantConfig .*'conf.yaml'. A file is the "
         "form of neural-compressor 1.x"),
        (Path("conf.yaml"), TypeError, "A file is the form of neural-compressor 1.x"),
        ({"model": {}, "tuning": {}}, ValueError, "'model', 'tuning', so it is .* of .* 1.x"),
        ({"accuracy_criterion": 0.05}, TypeError,
         r"accuracy_criterion must be an Accuracy.* got 0.05. .*'tolerable_loss': 0.05}"),
        ({"accuracy_criterion": ["relative", 0.05]}, TypeError,
         "write {'criterion': 'relative', 'tolerable_loss': 0.05}"),
        ({"accuracy_criterion": {"relative": 0.05}}, ValueError,
         "1.x: write {'criterion': 'relative', 'tolerable_loss': 0.05}"),
        ({"accuracy_criterion": {"tolerable_loss": 1}}, ValueError,
         "A relative tolerable loss of 1 means 100% .* for 1% give 0.01"),
        ({"accuracy_criterion": {"strategy": "mse"}}, ValueError, "It is one of tuning_criterion"),
        ({"tuning_criterion": "mse"}, TypeError, "For a strategy write {'strategy': 'mse'}"),
        ({"tuning_criterion": ["mse"]}, TypeError, "For a strategy write {'strategy': 'mse'}"),
        ({"tuning_criterion": 5}, TypeError, "must be a TuningCriterion .* got 5"),
        ({"tolerable_loss": 0.05}, ValueError,
         "one of accuracy_criterion: write {'accuracy_criterion': {'tolerable_loss': 0.05}}"),
        ({"tuning_criterion": {"strategy_kwargs": "x"}}, TypeError,
         "strategy_kwargs must be a mapping .* but got 'x'"),
        ({"tuning_criterion": {"timeout": -1}}, ValueError, "timeout must be .* but got -1"),
        ({"quant_level": 2}, ValueError, "quant_level must be 'auto', 0 or 1, but got 2"),
        ({"recipes": ["smooth_quant"]}, TypeError,
         r"recipes must be a mapping .*, but got \['smooth_quant'\]"),
        ({"recipes": "all"}, TypeError, r"inc.load\(conf\) | {'recipes': 'all'}"),
        ({"recipes": {"smooth_quant": True, "smooth_quant_args": 0.5}}, TypeError,
         "smooth_quant_args must be a mapping, .* but got 0.5"),
        ({"calibration_sampling_size": "100"}, TypeError,
         "calibration_sampling_size must be an integer or a list of integers, but got '100'"),
        ({"tuning_criterion": {"strategy": "bayesain"}}, ValueError,
         "no strategy 'bayesain'. Did you mean 'bayesian'"),
        ({"op_type_dict": {"Conv": {"weights": {"bits": [8]}}}}, ValueError,
         r"op_type_dict\['Conv'\]\['weights'\]: expected .* Did you mean 'weight'"),
        ({"op_type_dict": {"Conv": {"weight": {"granularity": ["per_chanel"]}}}}, ValueError,
         "no granularity 'per_chanel'. Did you mean 'per_channel'"),
        ({"op_name_dict": {"/a(1/b": {"mode": ["fp31"]}}}, ValueError, "no mode 'fp31'"),
        ({"excluded_precisions": ["fp17"]}, ValueError, "got 'fp17'. Did you mean 'fp16'"),
        (PostTrainingQuantConfig, TypeError, r"the class .*: give PostTrainingQuantConfig\("),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_wrong_is_named(conf: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        inc.load(conf)


@pytest.mark.parametrize(
    ("part", "given", "message"),
    [
        ("accuracy_criterion", Tuning(), "That is a TuningCriterion, the value of tuning_criter"),
        (
            "tuning_criterion",
            Accuracy(),
            "That is an AccuracyCriterion, the value of accuracy_cri",
        ),
        ("tuning_criterion", Tuning, r"Give an instance, Tuning\(...\)"),
        ("accuracy_criterion", AccuracyCriterion, "Give an instance, AccuracyCriterion"),
    ],
)
def test_a_criterion_in_the_place_of_another_is_named(
    part: str, given: object, message: str
) -> None:
    for conf in ({part: given}, PostTrainingQuantConfig(**{part: given})):
        with pytest.raises(TypeError, match=f"{part} must be .*{message}"):
            inc.load(conf)


def test_a_criterion_alone_is_told_its_place() -> None:
    with pytest.raises(TypeError, match="Write {'accuracy_criterion': AccuracyCriterion"):
        inc.load(AccuracyCriterion())


def test_no_limit_is_said() -> None:
    found, said = warned({"tuning_criterion": {"timeout": None, "max_trials": None}})
    assert (found["timeout"], found["max_trials"]) == (None, None)
    assert said == []
    assert "timeout" not in inc.load({})


@pytest.mark.parametrize("timeout", ["0", 0, "0s"])
def test_a_timeout_of_nothing_is_not_warned_of(timeout: object) -> None:
    _, said = warned({"tuning_criterion": {"timeout": timeout}})
    assert said == []


def test_options_of_a_strategy_that_is_not_here_are_left_out() -> None:
    kwargs = {"sigopt_api_token": "x", "sigopt_project_id": "y"}
    conf = {
        "quant_level": 1,
        "tuning_criterion": {"strategy": "sigopt", "strategy_kwargs": kwargs},
    }
    found, (message,) = warned(conf)
    assert found["strategy"] == "tpe"
    assert "strategy_kwargs" not in found
    assert message.endswith("needs no account. sigopt_api_token, sigopt_project_id: left out.")


def test_a_strategy_that_a_level_overrules_is_named() -> None:
    conf = {
        "quant_level": 0,
        "tuning_criterion": {
            "strategy": "mse_v2",
            "strategy_kwargs": {"confidence_batches": 2},
        },
    }
    found, (message,) = warned(conf)
    assert found["quant_level"] == 0
    assert not {"strategy", "strategy_kwargs"} & set(found)
    assert "strategy='mse_v2' does not count; with quant_level=1 it does" in message


def test_a_strategy_that_a_mapping_names_counts_though_it_is_the_default() -> None:
    found, (message,) = warned({"tuning_criterion": {"strategy": "basic"}})
    assert found["strategy"] == "basic"
    assert "quant_level='auto' with strategy='basic'" in message


@pytest.mark.parametrize(
    "alpha", [np.float32(0.3), np.float64(0.3), np.array(0.3), [np.float32(0.3)], np.array([0.3])]
)
def test_an_alpha_of_numpy_is_a_number(alpha: object) -> None:
    recipes = {"smooth_quant": True, "smooth_quant_args": {"alpha": alpha}}
    found = inc.load({"recipes": recipes})
    values = requested_recipes(found["recipes"]).values
    assert values == {"smooth_quant": ("alpha=0.3",)}


def test_warnings_are_at_the_line_that_loads() -> None:
    with pytest.warns(UserWarning) as caught:
        inc.load({"diagnosis": True, "device": "npu", "recipes": {"rtn_args": {"x": 1}}})
    assert {each.filename for each in caught} == {__file__}
    assert len(caught) == 3


def test_settings_of_smooth_quant_that_are_not_here_are_left_out_and_said_once() -> None:
    args = {
        "alpha": "auto",
        "folding": False,
        "percentile": 99.999,
        "default_alpha": 0.6,
        "op_types": ["MatMul", "Conv", "FusedConv"],
        "auto_alpha_args": {"alpha_min": 0.3, "do_blockwise": True},
    }
    found, said = warned({"recipes": {"smooth_quant": True, "smooth_quant_args": args}})
    (message,) = said
    for name in ("percentile", "default_alpha", "op_types FusedConv", "auto_alpha_args do_blockw"):
        assert name in message
    label = "alpha=auto, folding=false, op_types=MatMul+Conv, alpha_min=0.3"
    assert requested_recipes(found["recipes"]).values == {"smooth_quant": (label,)}
    # What only an automatic alpha uses says nothing beside another one.
    args = {"alpha": [0.3, 0.5], "auto_alpha_args": {"alpha_min": 0.3}}
    found, said = warned({"recipes": {"smooth_quant": True, "smooth_quant_args": args}})
    assert not said
    values = requested_recipes(found["recipes"]).values
    assert values == {"smooth_quant": ("alpha=0.3", "alpha=0.5")}


def test_the_settings_of_smooth_quant_are_those_of_the_recipe() -> None:
    assert set(_inc_recipes.SMOOTH_QUANT) == set(SmoothQuant.arguments)
    assert set(_inc_recipes.AUTO_ALPHA) == {each.name for each in fields(AutoAlpha)}
    assert set(_inc_recipes.SMOOTHED) == set(OP_TYPES)


def test_a_size_that_is_written_counts_though_it_is_the_default() -> None:
    assert inc.load({"calibration_sampling_size": [100]})["calibration_sizes"] == [100]
    assert "calibration_sizes" not in inc.load({})
    assert "calibration_sizes" not in inc.load(PostTrainingQuantConfig())


@pytest.mark.parametrize("backend", ["onnxrt_cuda_ep", "onnxrt_trt_ep"])
@pytest.mark.parametrize(
    ("excluded", "modes"),
    [(["bf16"], {"fp16", "fp32"}), (["bf16", "fp16"], {"fp32"}), ([], {"bf16", "fp16", "fp32"})],
)
@pytest.mark.parametrize("approach", ["static", "auto"])
def test_excluded_precisions_are_no_fallbacks(
    approach: str, excluded: list[str], modes: set[str], backend: str
) -> None:
    found, said = warned(
        {
            "approach": approach,
            "backend": backend,
            "excluded_precisions": excluded,
            "op_type_dict": {
                "Conv": {"weight": {"granularity": ["per_tensor"]}},
                ".*": {"activation": {"algorithm": ["minmax"]}},
            },
        }
    )
    assert said == []
    made = OnnxRuntimeBackend(
        onnx_models.convnet(),
        calibration_data=onnx_models.samples(8, 2, 8, 8),
        approach=approach,
        target=found["target"],
    )
    space = made.tuning_space(op_type_dict=found["op_type_dict"])
    options = [option for tunable in space.tunables for option in tunable.options]
    assert {option.mode for option in options if not option.is_quantized} == modes
    assert {o.activation.algorithm for o in options if o.activation is not None} == {"minmax"}
    convs = [o.weight for t in space.tunables if t.op_type == "Conv" for o in t.quantized]
    assert {weight.granularity for weight in convs if weight is not None} == {"per_tensor"}


def test_excluded_precisions_of_the_cpu_change_nothing() -> None:
    found, said = warned({"excluded_precisions": ["bf16"]})
    assert "op_type_dict" not in found
    assert said == []


def test_recipes_that_are_not_named_are_left_to_the_search() -> None:
    assert "recipes" not in inc.load({})
    assert "recipes" not in inc.load({}, same_order=True)
    # An object has the defaults of all, written or not.
    assert "recipes" not in inc.load(PostTrainingQuantConfig())


@pytest.mark.parametrize("name", ["smooth_quant", "fast_bias_correction", "weight_correction"])
def test_a_recipe_that_is_off_in_a_mapping_stays_off(name: str) -> None:
    found = inc.load({"recipes": {name: False}})
    assert found["recipes"] == {name: False}
    assert requested_recipes(found["recipes"]).values == {name: ("off",)}


def test_gemm_to_matmul_counts_where_it_is_written() -> None:
    assert inc.load({"recipes": {"gemm_to_matmul": True}})["recipes"] == {"gemm_to_matmul": True}
    assert "recipes" not in inc.load({"recipes": {"gemm_to_matmul": None}})


def test_same_order() -> None:
    conf = {"quant_level": 1, "tuning_criterion": {"strategy_kwargs": {"max_op_type_trials": 9}}}
    found = inc.load(conf, same_order=True)
    assert found["strategy_kwargs"] == {"compat": "inc2", "max_op_type_trials": 9}


def test_a_loaded_configuration_is_searched(tmp_path: Path) -> None:
    model = onnx_models.convnet()
    x = onnx_models.samples(40, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    result = optuna_quant.tune(
        model,
        calibration_data={"x": x},
        data=({"x": x}, scores.argmax(axis=1)),
        **{"objective": "ops"}
        | inc.load(
            {
                "quant_level": 1,
                "reduce_range": True,
                "accuracy_criterion": {"tolerable_loss": 0.2},
                "op_type_dict": {"Conv": {"weight": {"granularity": ["per_tensor"]}}},
            }
        ),
    )
    assert result.met
    assert result.config is not None
    convs = [c for op, c in result.config.ops.items() if op.startswith("Conv")]
    assert convs
    assert {c.weight.granularity for c in convs if c.weight is not None} == {"per_tensor"}


def test_hawq_v2_loss_takes_output_and_target() -> None:
    torch = pytest.importorskip("torch")
    model = onnx_models.convnet()
    x = onnx_models.samples(40, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    labels = scores.argmax(axis=1)
    shapes = set()

    def loss(output: Any, target: Any) -> Any:
        shapes.add((tuple(output.shape[1:]), tuple(target.shape[1:]), target.dtype))
        return torch.nn.functional.cross_entropy(output, target)

    def search(**kwargs: object) -> Any:
        return optuna_quant.tune(
            model,
            calibration_data={"x": x},
            data=({"x": x}, labels),
            objective="ops",
            criterion="absolute",
            tolerable_loss=0.3,
            strategy="hawq_v2",
            strategy_kwargs={"hawq_v2_loss": loss, **kwargs},
        )

    assert search(labels=labels).met
    assert shapes == {(scores.shape[1:], (), torch.int64)}
    with pytest.raises(ValueError, match="give those of the calibration samples"):
        search()
    with pytest.raises(ValueError, match="give either loss or hawq_v2_loss"):
        search(loss=loss)
    with pytest.raises(TypeError, match="hawq_v2_loss must be a function"):
        optuna_quant.tune(
            model, calibration_data={"x": x}, data=({"x": x}, np.asarray(labels)),
            objective="ops", strategy="hawq_v2", strategy_kwargs={"hawq_v2_loss": 3},
        )  # fmt: skip
