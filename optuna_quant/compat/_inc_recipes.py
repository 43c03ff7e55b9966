"""What a configuration of neural-compressor 2.x says of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.compat._inc_fields import Warn


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
# What the user may write although it is the default there: a method that is off is not tried
# then, and Gemm is rewritten only on request here.
_COUNTS_IF_WRITTEN = frozenset(
    {
        ("fast_bias_correction", False),
        ("gemm_to_matmul", True),
        ("smooth_quant", False),
        ("weight_correction", False),
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
SMOOTH_QUANT = ("alpha", "folding", "scales_per_op", "weight_clip", "op_types", "auto_alpha_args")
AUTO_ALPHA = ("alpha_min", "alpha_max", "alpha_step", "shared_criterion")
SMOOTHED = ("MatMul", "Gemm", "Conv")
# Digits of an alpha: those of a range in steps of NumPy are no decimals.
_DIGITS = 6


def recipe_options(given: object, warn: Warn, *, is_written: bool = False) -> dict[str, Any]:
    """The recipes that are set to something else than their defaults.

    Args:
        given:
            The value of ``recipes``.
        warn:
            Notes a warning.
        is_written:
            Whether all that is there was written by the user: then a default counts as well where
            something else would be done without it. An object holds all defaults.

    Raises:
        TypeError:
            If it is no mapping.
        ValueError:
            If it has a recipe that does not exist.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise TypeError(
            "recipes must be a mapping of names to values, such as {'smooth_quant': True}, but "
            f"got {given!r}. To give tune() recipes in its own form, write inc.load(conf) | "
            f"{{'recipes': {given!r}}}."
        )
    for name in given:
        known = (*_RECIPES, *_RECIPES_ELSEWHERE, *_ALGORITHMS)
        if name not in known:
            raise ValueError(f"There is no recipe {name!r}.{did_you_mean(str(name), known)}")
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
        if name in _RECIPES
        and value is not None
        and (value != _RECIPES[name] or (is_written and _counts_if_written(name, value)))
    }
    args = found.pop("smooth_quant_args", None)
    if args and found.get("smooth_quant"):
        if not isinstance(args, Mapping):
            raise TypeError(
                f"recipes: smooth_quant_args must be a mapping, such as {{'alpha': 0.5}}, but "
                f"got {args!r}."
            )
        kept = _smooth_quant_args(args, warn)
        found |= {"smooth_quant_args": kept} if kept else {}
    return found


def _counts_if_written(name: str, value: object) -> bool:
    return isinstance(value, bool) and (name, value) in _COUNTS_IF_WRITTEN


def _smooth_quant_args(given: Mapping[str, Any], warn: Warn) -> dict[str, Any]:
    """The settings of SmoothQuant that are here as well; one warning names the others."""
    found = {name: value for name, value in given.items() if name in SMOOTH_QUANT}
    left_out = [name for name in given if name not in SMOOTH_QUANT]
    types = found.get("op_types")
    if isinstance(types, (list, tuple)):
        found["op_types"] = [each for each in types if each in SMOOTHED]
        left_out += [f"op_types {each}" for each in types if each not in SMOOTHED]
    if "alpha" in found:
        found["alpha"] = _plain(found["alpha"])
    alphas = found.get("alpha")
    auto = found.pop("auto_alpha_args", None) or {}
    left_out += [f"auto_alpha_args {name}" for name in auto if name not in AUTO_ALPHA]
    # Without an automatic alpha they mean nothing, there and here.
    if alphas == "auto" or (isinstance(alphas, (list, tuple)) and "auto" in alphas):
        kept = {name: _plain(value) for name, value in auto.items() if name in AUTO_ALPHA}
        found |= {"auto_alpha_args": kept} if kept else {}
    if left_out:
        warn(
            f"recipes: smooth_quant_args: left out, since smooth_quant does not have them here: "
            f"{', '.join(left_out)}."
        )
    return found


def _plain(value: object) -> object:
    """Numbers and arrays of NumPy as numbers and lists of Python."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    is_real = isinstance(value, Real) and not isinstance(value, (bool, int))
    return round(float(value), _DIGITS) if is_real else value  # type: ignore[arg-type]
