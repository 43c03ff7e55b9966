"""Read a configuration of neural-compressor 2.x."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from numbers import Integral
from types import MappingProxyType
from typing import Any

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.compat._inc_fields import FIELDS
from optuna_quant.compat._inc_fields import Warn
from optuna_quant.compat._inc_fields import fields_of
from optuna_quant.compat._inc_recipes import recipe_options
from optuna_quant.compat._inc_search import accuracy_options
from optuna_quant.compat._inc_search import search_options
from optuna_quant.space.wish_checks import check_op_dict


_TARGETS = MappingProxyType({"onnxrt_cuda_ep": "cuda", "onnxrt_trt_ep": "tensorrt"})
_PROVIDERS = MappingProxyType(
    {"onnxrt_dnnl_ep": "DnnlExecutionProvider", "onnxrt_dml_ep": "DmlExecutionProvider"}
)
_APPROACHES = ("static", "dynamic", "auto", "weight_only")
_PRECISIONS = ("bf16", "fp16", "int8")


def load(conf: object, *, same_order: bool = False) -> dict[str, Any]:
    """The arguments of :func:`~optuna_quant.tune` that a configuration stands for.

    What neural-compressor's configuration says and this library does not have, or has in another
    form, is named in one warning per field. Data and evaluation are not part of a configuration.
    Where it names no recipe, none is among the arguments: :func:`~optuna_quant.tune` then tries
    those that the model's structure suggests; ``inc.load(conf) | {"recipes": "none"}`` leaves
    them out.

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
            If it is no such configuration, or a field has another type.
        ValueError:
            If a mapping has an unknown field, or a value is out of its range.
    """
    fields = fields_of(conf)
    said: list[str] = []
    options: dict[str, Any] = {"approach": _approach(fields["approach"])}
    options |= accuracy_options(fields)
    options |= search_options(fields, same_order=same_order, warn=said.append)
    options |= _device(fields, said.append)
    for name in ("op_type_dict", "op_name_dict"):
        check_op_dict(name, fields[name])
    options |= {
        name: fields[name]
        for name in ("op_type_dict", "op_name_dict", "reduce_range")
        if fields[name]
    }
    options |= _modes(fields["excluded_precisions"], options, said.append)
    sizes, name = fields["calibration_sampling_size"], "calibration_sampling_size"
    # An object has the default where no size was given; a mapping has what was written.
    if sizes != FIELDS[name] or (isinstance(conf, Mapping) and name in conf):
        options["calibration_sizes"] = _sizes(sizes)
    recipes = recipe_options(fields["recipes"], said.append, is_written=isinstance(conf, Mapping))
    if recipes:
        options["recipes"] = recipes
    if fields["quant_format"] == "QOperator":
        said.append(
            "quant_format='QOperator': models are always written with QuantizeLinear pairs."
        )
    if fields["diagnosis"]:
        said.append("diagnosis=True: use result.report(), or optuna_quant.sensitivity().")
    for text in said:  # Last, so that an error is not among them.
        warn_user(f"neural-compressor configuration: {text}")
    return options


def _approach(given: object) -> str:
    # A configuration object holds the long names, such as post_training_static_quant.
    for name in _APPROACHES:
        if isinstance(given, str) and name in given:
            return name
    raise ValueError(
        f"approach must be 'static', 'dynamic', 'auto' or 'weight_only', but got {given!r}."
    )


def _sizes(given: object) -> list[int]:
    sizes = [given] if isinstance(given, Integral) else given
    if not isinstance(sizes, (list, tuple)) or not all(
        isinstance(size, Integral) and not isinstance(size, bool) for size in sizes
    ):
        raise TypeError(
            "calibration_sampling_size must be an integer or a list of integers, but got "
            f"{given!r}."
        )
    return [int(size) for size in sizes]


def _device(fields: Mapping[str, Any], warn: Warn) -> dict[str, Any]:
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
    excluded: str | Sequence[str] | None, options: Mapping[str, Any], warn: Warn
) -> dict[str, Any]:
    """The ``op_type_dict`` without the floating-point modes that are excluded."""
    without = [excluded] if isinstance(excluded, str) else list(excluded or ())
    for name in without:
        if name not in _PRECISIONS:
            raise ValueError(
                f"excluded_precisions must be among 'bf16' and 'fp16', but got {name!r}."
                f"{did_you_mean(str(name), _PRECISIONS[:2])}"
            )
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
