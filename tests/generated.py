"""Hypothesis settings and strategies that the tests share."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from optuna_quant.space.config import ACCURACY_LEVELS
from optuna_quant.space.config import DTYPES
from optuna_quant.space.config import FLOAT_MODES
from optuna_quant.space.config import SCHEMES
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


# The same examples in each run.
steady = settings(derandomize=True)

ALGORITHMS = st.sampled_from(["minmax", "kl", "percentile", "mse"]) | st.from_regex(
    r"[a-z][a-z0-9_]{0,8}", fullmatch=True
)
OP_NAMES = st.sampled_from(
    [
        "/layers.0/attn/MatMul",
        "conv 1: first",
        "op:a",
        "a=b w=c",
        "κόμβος/畳み込み",
        "[unclosed (regex",
        '"quoted"\n\t\0',
        "x" * 2000,
        "",
    ]
) | st.text(max_size=12)
RECIPE_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)


@st.composite
def tensor_configs(draw: st.DrawFn) -> TensorConfig:
    granularity = draw(st.sampled_from(["per_tensor", "per_channel", "per_group"]))
    return TensorConfig(
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(SCHEMES)),
        granularity,
        draw(ALGORITHMS),
        draw(st.integers(1, 10**30)) if granularity == "per_group" else None,
    )


@st.composite
def op_configs(draw: st.DrawFn) -> OpConfig:
    mode = draw(st.sampled_from(["static", "dynamic", "weight_only", *FLOAT_MODES]))
    tensors = tensor_configs()
    if mode == "static":
        return OpConfig(mode, draw(tensors), draw(st.none() | tensors))
    if mode == "dynamic":
        activation = draw(st.none() | tensors)
        return OpConfig(mode, activation, draw(st.none() | tensors if activation else tensors))
    if mode == "weight_only":
        level = draw(st.none() | st.sampled_from(ACCURACY_LEVELS))
        return OpConfig(mode, None, draw(tensors), level)
    return OpConfig(mode)


@st.composite
def quant_configs(draw: st.DrawFn, min_ops: int = 0) -> QuantConfig:
    return QuantConfig(
        draw(st.dictionaries(OP_NAMES, op_configs(), min_size=min_ops, max_size=4)),
        draw(st.dictionaries(st.text(max_size=6), RECIPE_VALUES, max_size=3)),
        draw(st.none() | st.integers(1, 10**6)),
    )


@st.composite
def spaces(draw: st.DrawFn) -> TuningSpace:
    """Small spaces of every shape: groups, fixed ops, ops without fallback, recipes, sizes."""
    names = draw(st.lists(OP_NAMES, min_size=1, max_size=6, unique=True))
    tunables = []
    while names:
        ops = tuple(names.pop(0) for _ in range(draw(st.integers(1, min(2, len(names))))))
        options = draw(st.lists(op_configs(), min_size=1, max_size=4, unique=True))
        options.sort(key=lambda option: not option.is_quantized)
        tunables.append(Tunable(f"tunable {ops[0]}", "Conv", ops, tuple(options)))
    values = st.lists(RECIPE_VALUES, min_size=1, max_size=3, unique=True)
    recipes = draw(st.dictionaries(st.text(max_size=4), values, max_size=2))
    sizes = draw(st.lists(st.integers(1, 1000), max_size=3, unique=True))
    prefix = draw(st.sampled_from(["quant", "p", "a.b"]))
    return TuningSpace(
        tuple(tunables), {k: tuple(v) for k, v in recipes.items()}, tuple(sizes), prefix
    )
