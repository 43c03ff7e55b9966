"""Read a configuration of neural-compressor 2.x."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any
import warnings

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.options.criterion import TuningCriterion


# Each with its default in neural-compressor 2.6.
_FIELDS: Mapping[str, object] = MappingProxyType(
    {
        "accuracy_criterion": None,
        "approach": "static",
        "backend": "default",
        "calibration_sampling_size": [100],
        "device": "cpu",
        "diagnosis": False,
        "domain": "auto",
        "example_inputs": None,
        "excluded_precisions": [],
        "inputs": [],
        "model_name": "",
        "ni_workload_name": "quantization",
        "op_name_dict": None,
        "op_type_dict": None,
        "outputs": [],
        "quant_format": "default",
        "quant_level": "auto",
        "recipes": {},
        "reduce_range": None,
        "tuning_criterion": None,
    }
)
_OF_ACCURACY = ("higher_is_better", "criterion", "tolerable_loss")
_OF_TUNING = ("strategy", "strategy_kwargs", "timeout", "max_trials", "objective")
_RECIPES: Mapping[str, object] = MappingProxyType(
    {
        "add_qdq_pair_to_weight": False,
        "dedicated_qdq_pair": False,
        "fast_bias_correction": False,
        "first_conv_or_matmul_quantization": True,
        "gemm_to_matmul": True,
        "graph_optimization_level": None,
        "last_conv_or_matmul_quantization": True,
        "optypes_to_exclude_output_quant": [],
        "pre_post_process_quantization": True,
        "smooth_quant": False,
        "smooth_quant_args": {},
        "weight_correction": False,
    }
)
_RECIPES_ELSEWHERE = ("layer_wise_quant", "layer_wise_quant_args")
_FIXED = "its settings are fixed, see docs/migrating.md"
# What to do instead.
_ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {
        "rtn_args": f"{_FIXED}; accuracy_level is a field of op_type_dict",
        "awq_args": f"{_FIXED}; accuracy_level is a field of op_type_dict",
        "gptq_args": f"{_FIXED}, except actorder and mse: name the algorithm 'gptq_act', "
        "'gptq_mse' or 'gptq_act_mse' in op_type_dict, and accuracy_level beside it",
        "teq_args": "there is no TEQ here; name the algorithm 'gptq' or 'awq' in op_type_dict",
        "autoround_args": "there is no AutoRound here; name the algorithm 'gptq' or 'awq' in "
        "op_type_dict",
    }
)
# The settings of SmoothQuant that are here as well.
_SMOOTH_QUANT = ("alpha", "folding", "scales_per_op", "weight_clip", "op_types", "auto_alpha_args")
_AUTO_ALPHA = ("alpha_min", "alpha_max", "alpha_step", "shared_criterion")
_SMOOTHED = ("MatMul", "Gemm", "Conv")
_TARGETS = MappingProxyType({"onnxrt_cuda_ep": "cuda", "onnxrt_trt_ep": "tensorrt"})
_PROVIDERS = MappingProxyType(
    {"onnxrt_dnnl_ep": "DnnlExecutionProvider", "onnxrt_dml_ep": "DmlExecutionProvider"}
)
_MEASURES = MappingProxyType({"performance": "latency", "modelsize": "size", "footprint": "size"})

_Warn = Callable[[str], None]


def load(conf: object, *, same_order: bool = False) -> dict[str, Any]:
    """The arguments of :func:`~optuna_quant.tune` that a configuration stands for.

    What neural-compressor's configuration says and this library does not have, or has in another
    form, is named in one warning per field. Data and evaluation are not part of a configuration.

    Example:

        .. code-block:: python

            import optuna_quant
            from optuna_quant.compat import inc

            result = optuna_quant.tune(
                "model.onnx", calibration_data=batches, evaluate=evaluate, **inc.load(conf)
            )

    Args:
        conf:
            A ``PostTrainingQuantConfig`` of neural-compressor 2.x, which need not be installed;
            or a mapping with its fields, such as ``{"approach": "static", "tuning_criterion":
            {"strategy": "basic"}}``.
        same_order:
            Whether the strategy tries configurations in neural-compressor's order
            (``strategy_kwargs={"compat": "inc2"}``). Default: in the order that is better here.

    Returns:
        Arguments by name. To change one, write ``tune(..., **inc.load(conf) | {"timeout": 60})``.

    Raises:
        TypeError:
            If it is no such configuration.
        ValueError:
            If a mapping has an unknown field, or a value is out of its range.
    """
    fields = _fields(conf)

    def warn(text: str) -> None:
        warnings.warn(f"neural-compressor configuration: {text}", stacklevel=3)

    options: dict[str, Any] = {"approach": _approach(fields["approach"])}
    options |= _accuracy(fields["accuracy_criterion"])
    options |= _search(fields, same_order=same_order, warn=warn)
    options |= _device(fields, warn)
    options |= {
        name: fields[name]
        for name in ("op_type_dict", "op_name_dict", "reduce_range")
        if fields[name]
    }
    options |= _modes(fields["excluded_precisions"], options, warn)
    sizes, name = fields["calibration_sampling_size"], "calibration_sampling_size"
    # An object has the default where no size was given; a mapping has what was written.
    if sizes != _FIELDS[name] or (isinstance(conf, Mapping) and name in conf):
        options["calibration_sizes"] = [sizes] if isinstance(sizes, int) else list(sizes)
    recipes = _recipes(fields["recipes"] or {}, warn)
    if recipes:
        options["recipes"] = recipes
    if fields["quant_format"] == "QOperator":
        warn("quant_format='QOperator': models are always written with QuantizeLinear pairs.")
    if fields["diagnosis"]:
        warn("diagnosis=True: use result.report(), or optuna_quant.sensitivity().")
    return options


def _fields(conf: object) -> dict[str, Any]:
    if isinstance(conf, Mapping):
        _check_names(conf, _FIELDS, "There is no field {!r} in a PostTrainingQuantConfig")
        return {**_FIELDS, **conf}
    name = type(conf).__name__
    if name != "PostTrainingQuantConfig" and not hasattr(conf, "calibration_sampling_size"):
        raise TypeError(
            "conf must be a PostTrainingQuantConfig of neural-compressor 2.x or a mapping with "
            f"its fields, but is of type {name}."
        )
    if name == "QuantizationAwareTrainingConfig":
        raise TypeError("conf is for quantization-aware training, which ONNX models do not have.")
    return {field: getattr(conf, field, default) for field, default in _FIELDS.items()}


def _part(given: object, what: str, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a criterion that are said, of an object or a mapping."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        _check_names(given, names, f"{what} has no field {{!r}}")
        return dict(given)
    return {name: getattr(given, name) for name in names if hasattr(given, name)}


def _check_names(given: Mapping[Any, Any], known: Any, message: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{message.format(name)}.{did_you_mean(str(name), known)}")


def _accuracy(given: object) -> dict[str, Any]:
    said = _part(given, "accuracy_criterion", _OF_ACCURACY)
    criterion = AccuracyCriterion(**said)
    found = {"criterion": criterion.criterion, "tolerable_loss": criterion.tolerable_loss}
    # True is the default there for every metric; here a named metric knows its direction.
    return found if criterion.higher_is_better else {"higher_is_better": False, **found}


def _approach(given: str) -> str:
    # A configuration object holds the long names, such as post_training_static_quant.
    for name in ("static", "dynamic", "auto", "weight_only"):
        if name in given:
            return name
    raise ValueError(
        f"approach must be 'static', 'dynamic', 'auto' or 'weight_only', but got {given!r}."
    )


def _search(fields: Mapping[str, Any], *, same_order: bool, warn: _Warn) -> dict[str, Any]:
    said = _part(fields["tuning_criterion"], "tuning_criterion", _OF_TUNING)
    strategy, level = said.pop("strategy", "basic"), fields["quant_level"]
    if strategy == "sigopt":
        warn("strategy='sigopt' is not available: 'tpe' is used, which needs no account.")
        strategy = "tpe"
    kwargs = dict(said.pop("strategy_kwargs", None) or {})
    if same_order:
        kwargs["compat"] = "inc2"
    objective = _objective(said.pop("objective", None), warn)
    if said.get("timeout"):
        warn(
            f"timeout={said['timeout']}: neural-compressor 2 searched until max_trials; here the "
            "search ends after so many seconds, with the best model found."
        )
    # The levels stand for strategies; only with level 1 a name counts beside it.
    named: dict[str, Any] = {"quant_level": level}
    if level == "auto" and strategy != "basic":
        warn(
            f"quant_level='auto' with strategy={strategy!r}: the search begins with {strategy!r} "
            "at once, without the conservative strategy before it."
        )
        named = {}
    found = {"strategy": strategy if level == 1 or not named else None, **said}
    found |= {"strategy_kwargs": kwargs, "objective": objective}
    TuningCriterion(**found)  # A value that is out of its range is found now.
    return {**named, **{name: value for name, value in found.items() if value not in (None, {})}}


def _objective(given: object, warn: _Warn) -> str | dict[str, float] | None:
    weights: Sequence[float] | None = None
    if isinstance(given, Mapping):
        if given.get("higher_is_better") is not None:
            warn("objective: higher_is_better is not used, time and size are always minimized.")
        weights, given = given.get("weight"), given.get("objective")
    given = (given,) if isinstance(given, str) else given or ()
    if not isinstance(given, Iterable):
        raise ValueError(f"objective must be a name, or a list of names, but got {given!r}.")
    names = list(given)
    found: dict[str, float] = {}
    for name, weight in zip(names, weights or [1.0] * len(names), strict=True):
        if name == "accuracy":
            warn("objective='accuracy' is left out: the criterion says how good is good enough.")
        elif name not in _MEASURES:
            raise ValueError(
                f"objective must be among performance, accuracy, modelsize and footprint, but "
                f"got {name!r}."
            )
        else:
            found[_MEASURES[name]] = found.get(_MEASURES[name], 0.0) + weight
    if not found or list(names) == ["performance"]:
        return None  # The default: latency, where the costs of ops predict it.
    return next(iter(found)) if len(found) == 1 else found


def _device(fields: Mapping[str, Any], warn: _Warn) -> dict[str, Any]:
    backend, device = fields["backend"], fields["device"]
    if backend in _TARGETS:
        return {"target": _TARGETS[backend]}
    if backend in _PROVIDERS:
        return {"providers": [_PROVIDERS[backend], "CPUExecutionProvider"]}
    if backend != "default":
        warn(f"backend={backend!r} is not one of ONNX Runtime: the CPU is used.")
    elif device == "gpu":
        return {"target": "cuda"}
    elif device != "cpu":
        warn(f"device={device!r}: give target= (see docs/targets.md); the CPU is used.")
    return {}


def _modes(
    excluded: Sequence[str] | None, options: Mapping[str, Any], warn: _Warn
) -> dict[str, Any]:
    """The ``op_type_dict`` without the floating-point modes that are excluded."""
    without = [excluded] if isinstance(excluded, str) else list(excluded or ())
    if "int8" in without:
        warn("excluded_precisions: 'int8' cannot be excluded; name the modes in op_type_dict.")
    # Only these targets have floats of 16 bits, and nothing dynamic.
    if "target" not in options or not {"bf16", "fp16"} & set(without):
        return {}
    quantized = "weight_only" if options["approach"] == "weight_only" else "static"
    modes = [quantized, *(mode for mode in ("bf16", "fp16", "fp32") if mode not in without)]
    given = options.get("op_type_dict") or {}
    # What the user says of types comes later, so that it counts.
    every = {"mode": modes, **given.get(".*", {})}
    return {"op_type_dict": {".*": every, **{k: v for k, v in given.items() if k != ".*"}}}


def _smooth_quant_args(given: Mapping[str, Any], warn: _Warn) -> dict[str, Any]:
    """The settings of SmoothQuant that are here as well; one warning names the others."""
    found = {name: value for name, value in given.items() if name in _SMOOTH_QUANT}
    left_out = [name for name in given if name not in _SMOOTH_QUANT]
    types = found.get("op_types")
    if isinstance(types, (list, tuple)):
        found["op_types"] = [each for each in types if each in _SMOOTHED]
        left_out += [f"op_types {each}" for each in types if each not in _SMOOTHED]
    alphas = found.get("alpha")
    auto = found.pop("auto_alpha_args", None) or {}
    left_out += [f"auto_alpha_args {name}" for name in auto if name not in _AUTO_ALPHA]
    # Without an automatic alpha they mean nothing, there and here.
    if alphas == "auto" or (isinstance(alphas, (list, tuple)) and "auto" in alphas):
        kept = {name: value for name, value in auto.items() if name in _AUTO_ALPHA}
        found |= {"auto_alpha_args": kept} if kept else {}
    if left_out:
        warn(
            f"recipes: smooth_quant_args: left out, since smooth_quant does not have them here: "
            f"{', '.join(left_out)}."
        )
    return found


def _recipes(given: Mapping[str, Any], warn: _Warn) -> dict[str, Any]:
    """The recipes that are set to something else than their defaults."""
    _check_names(given, (*_RECIPES, *_RECIPES_ELSEWHERE, *_ALGORITHMS), "There is no recipe {!r}")
    for name in (*_RECIPES_ELSEWHERE, *_ALGORITHMS):
        if not given.get(name):
            continue
        if name in _ALGORITHMS:
            warn(f"recipes: {name} is left out: {_ALGORITHMS[name]}.")
        else:
            warn(f"recipes: {name} is left out: weights are quantized one at a time anyway.")
    found = {
        name: value
        for name, value in given.items()
        if name in _RECIPES and value is not None and value != _RECIPES[name]
    }
    args = found.pop("smooth_quant_args", None)
    if args and found.get("smooth_quant"):
        kept = _smooth_quant_args(args, warn)
        found |= {"smooth_quant_args": kept} if kept else {}
    return found
