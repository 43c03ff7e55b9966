"""What each way to quantize a model costs and gives: a table for people.

The transformers and the depthwise network of ``--cases``, and SmolLM2-135M where its packages are
installed (see ``benchmarks/language/smollm2.py``). ``OPTUNA_QUANT_WAYS`` names some of them, and
``OPTUNA_QUANT_ROWS`` is a regular expression that the rows match.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import os
from pathlib import Path
import re
import time
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.cases import load_case
from benchmarks.timing import fastest
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


CASES = {
    "digits_vit_out": (4, 2),
    "fashion_vit": (4, 2),
    # Nearly all of their weights are of convolutions.
    "digits_dscnn_uneq": (),
    "fashion_mobilenet": (),
}
"""The cases, and the bits of all algorithms of weights alone."""
ALGORITHMS = ("rtn", "gptq", "gptq_act_mse", "awq", "hqq", "k_quant")
RECIPES = (
    *("equalization", "smooth_quant", "weight_correction", "fast_bias_correction"),
    *("first_conv_or_matmul_quantization", "last_conv_or_matmul_quantization"),
    *("gemm_to_matmul", "add_qdq_pair_to_weight", "dedicated_qdq_pair"),
    "optypes_to_exclude_output_quant",
)
"""What changes the quantized model; those that a model has no use for have no row."""
WORST = 3
"""How many ops are in fallback in the rows about it."""
GPU = "tensorrt"
"""A target that has float16 and bfloat16, on which nothing is timed."""
CALIBRATED = 128
EVALUATED = 2000
TEXTS = 4


@dataclass(frozen=True)
class Weights:
    """How weights alone are quantized.

    Args:
        bits:
            The bits of a value.
        scheme:
            ``"sym"`` or ``"asym"``.
        group_size:
            How many values share a scale; fewer where a weight has fewer.
        algorithm:
            The algorithm; RTN where an op does not have it.
    """

    bits: int
    scheme: str
    group_size: int
    algorithm: str

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.algorithm}, {self.bits} bits, {self.scheme}, groups of {self.group_size}"

    def option(self, op: OpCapability) -> OpConfig:
        """The option of an op that is nearest to it; FP32 if there is none."""
        every = [*op.options, *(each.option for each in op.on_request)]
        found = [option for option in every if self._fits(option)]
        return max(found, key=self._nearness, default=FP32)

    def _fits(self, option: OpConfig) -> bool:
        weight = option.weight
        return (
            option.mode == "weight_only"
            and weight is not None
            and (weight.bits, weight.scheme) == (self.bits, self.scheme)
            and weight.algorithm in ("rtn", self.algorithm)
            and (weight.group_size or 1 << 30) <= self.group_size
            and option.accuracy_level in (None, 0 if weight.algorithm == "hqq_float" else 4)
        )

    def _nearness(self, option: OpConfig) -> tuple[bool, int]:
        assert option.weight is not None
        return option.weight.algorithm == self.algorithm, option.weight.group_size or 0


@dataclass(frozen=True)
class Opened:
    """How a backend is opened.

    Args:
        approach:
            Its approach.
        target:
            What it quantizes for.
        float16_storage:
            Whether weights in floats are stored in 16 bits.
    """

    approach: str
    target: str = "cpu"
    float16_storage: bool = False


@dataclass(frozen=True)
class Row:
    """A way to quantize a model.

    Args:
        name:
            What the table calls it.
        opened:
            How the backend is opened.
        config:
            The configuration.
    """

    name: str
    opened: Opened
    config: Callable[[OnnxRuntimeBackend], QuantConfig]


def rows(
    opened: Callable[[Opened], OnnxRuntimeBackend],
    weights: Sequence[Weights],
    kept: str = "",
    *,
    fallback: bool = True,
) -> Iterator[Row]:
    """All ways to quantize a model.

    Args:
        opened:
            Gives a backend; for its recipes.
        weights:
            The ways to quantize weights alone.
        kept:
            The initializer whose readers have 8 bits in all of those.
        fallback:
            Whether there are rows with ops in floats.
    """
    for approach in ("static", "dynamic"):
        name, how = f"{approach} INT8", Opened(approach)
        yield Row(name, how, lambda b: b.tuning_space().default())
        if approach == "static":
            yield Row(f"{name}, mean_minmax ranges", how, _with_mean_ranges)
            yield Row(f"{name}, 16-bit activations", how, _with_wide_activations)
        for recipe, values in opened(how).tuning_space().recipes.items():
            for value in values[1:]:
                yield Row(
                    f"{name}, {recipe} {value}",
                    how,
                    lambda b, n=recipe, v=value: b.tuning_space().default().with_recipe(n, v),
                )
    if fallback:
        yield from _fallback_rows()
    for each in weights:
        yield Row(each.label, Opened("weight_only"), partial(_weights_alone, each, kept))
    yield from _mixed_rows(weights, kept)


def _fallback_rows() -> Iterator[Row]:
    """Static INT8 but for the most sensitive ops, which are in floats of several types."""
    worst = f"{WORST} ops in"
    yield Row(f"static INT8, {worst} FP32", Opened("static"), _without_worst)
    stored = Opened("static", float16_storage=True)
    yield Row(f"static INT8, {worst} FP32, floats stored as float16", stored, _without_worst)
    gpu = Opened("static", target=GPU)
    name = f"static INT8 for {GPU}"
    yield Row(name, gpu, lambda b: b.tuning_space().default())
    for mode, what in (("fp32", "FP32"), ("fp16", "float16"), ("bf16", "bfloat16")):
        yield Row(f"{name}, {worst} {what}", gpu, partial(_without_worst, mode=mode))


def _mixed_rows(weights: Sequence[Weights], kept: str) -> Iterator[Row]:
    """Weights of 4 bits, but of 8 in the more sensitive half of the ops."""
    rtn = Weights(4, "asym", 32, "rtn")
    if rtn in weights:
        yield Row(
            "rtn, 4 bits, the more sensitive half of the ops 8 bits, asym, groups of 32",
            Opened("weight_only"),
            partial(_mixed_bits, rtn, kept),
        )


def _with_mean_ranges(backend: OnnxRuntimeBackend) -> QuantConfig:
    wish = {".*": {"activation": {"algorithm": ["mean_minmax"]}}}
    return backend.tuning_space(op_type_dict=wish).default()


def _with_wide_activations(backend: OnnxRuntimeBackend) -> QuantConfig:
    wish = {".*": {"activation": {"bits": [16]}}}
    return backend.tuning_space(op_type_dict=wish).default()


def _without_worst(backend: OnnxRuntimeBackend, *, mode: str = "fp32") -> QuantConfig:
    """The default with the most sensitive ops in a mode; FP32 if one of them does not have it."""
    space = backend.tuning_space()
    worst = _most_sensitive(backend, space.default(), [t.name for t in space.tunables])[:WORST]
    able = {t.name for t in space.tunables if any(o.mode == mode for o in t.fallbacks)}
    return space.default().with_fallback(*worst, mode=mode) if able >= {*worst} else space.fp32()


def _mixed_bits(weights: Weights, kept: str, backend: OnnxRuntimeBackend) -> QuantConfig:
    config = _weights_alone(weights, kept, backend)
    few = [op for op, o in config.ops.items() if o.weight and o.weight.bits == weights.bits]
    worst = _most_sensitive(backend, config, few)[: len(few) // 2]
    eight = Weights(8, weights.scheme, weights.group_size, "rtn")
    ops = {op.name: op for op in backend.capability().ops}
    return config.with_ops({op: eight.option(ops[op]) for op in worst})


def _most_sensitive(
    backend: OnnxRuntimeBackend, config: QuantConfig, ops: Sequence[str]
) -> list[str]:
    """The ops by their sensitivity in a configuration, the highest first."""
    sensitivity = backend.sensitivity()
    assert sensitivity is not None
    scores = sensitivity(config, ops)
    return sorted(ops, key=lambda op: -scores[op])


def _weights_alone(weights: Weights, kept: str, backend: OnnxRuntimeBackend) -> QuantConfig:
    eight = Weights(8, "asym", 32, "rtn")
    readers = {
        node.name for node in backend._parts.model.graph.nodes if kept and kept in node.input
    }
    return QuantConfig(
        {
            op.name: (eight if op.name in readers else weights).option(op)
            for op in backend.capability().ops
            if op.default
        }
    )


def measure(
    name: str,
    model: Path,
    calibration: object,
    weights: Sequence[Weights],
    evaluate: Callable[[Any], float],
    runs: Callable[[Any], Callable[[], object]],
    *,
    metric: str,
    kept: str = "",
    fallback: bool = True,
    recipes: Mapping[str, object],
) -> None:
    """Print the table of a model.

    Args:
        name:
            Its name.
        model:
            The model.
        calibration:
            The calibration data.
        weights:
            The ways to quantize weights alone.
        evaluate:
            The metric of a session.
        runs:
            Gives what is timed of a model.
        metric:
            What the metric is called.
        kept:
            See :func:`rows`.
        fallback:
            The same.
        recipes:
            By approach, the recipes of which each value is a row.
    """

    def opened(how: Opened) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(
            model,
            approach=how.approach,
            target=how.target,
            float16_storage=how.float16_storage,
            calibration_data=calibration,
            recipes=recipes.get(how.approach) if how.target == "cpu" else None,
        )

    how = Opened("static")
    backend = opened(how)
    plain = backend.quantize(QuantConfig({}))
    exact = plain.session
    print(f"\n## {name}\n\n| way | {metric} | size | time | made in |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| FP32 | {evaluate(exact):.4f} | {_size(plain.nbytes)} | 1.00 | |", flush=True)
    wanted = re.compile(os.environ.get("OPTUNA_QUANT_ROWS", ""))
    for row in [
        each for each in rows(opened, weights, kept, fallback=fallback) if wanted.search(each.name)
    ]:
        if row.opened != how:
            # One at a time: each keeps what it has quantized.
            del backend
            backend, how = opened(row.opened), row.opened
        started = time.perf_counter()
        try:
            config = row.config(backend)
            if not config.quantized_ops:
                continue
            built = backend.quantize(config)
        except ValueError as error:
            print(f"| {row.name} | {error} | | | |", flush=True)
            continue
        made = time.perf_counter() - started
        ratio = ""
        if how.target == "cpu":  # Others are simulated.
            base, own = fastest(runs(plain), runs(built))
            ratio = f"{own / base:.2f}"
        print(
            f"| {row.name} | {evaluate(built.session):.4f} | {_size(built.nbytes)} | "
            f"{ratio} | {made:.1f} s |",
            flush=True,
        )


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} kB"


def ways_of_weights(bits: Sequence[int], schemes: Sequence[str], groups: Sequence[int]) -> Any:
    """All algorithms with each of these."""
    return [
        Weights(each, scheme, size, algorithm)
        for each in bits
        for scheme in schemes
        for size in groups
        for algorithm in ALGORITHMS
    ]


def one_thread(model: Any) -> onnxruntime.InferenceSession:
    """A session whose time does not depend on what else the machine does, as far as can be."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.proto.SerializeToString(), options)


def of_case(folder: Path) -> None:
    case = load_case(folder)
    batch = case.x[:64]
    measure(
        f"{case.name}: accuracy on {len(case.x[:EVALUATED]):,} samples; the time is that of 64",
        case.model,
        {case.input_name: case.calibration[:CALIBRATED]},
        [*ways_of_weights(CASES[case.name], ("asym",), (32,)), Weights(8, "asym", 32, "rtn")],
        case.accuracy(EVALUATED),
        lambda model: partial(one_thread(model).run, None, {case.input_name: batch}),
        metric="accuracy",
        recipes={"static": RECIPES},
    )


SMOLLM2_WEIGHTS = (
    *ways_of_weights((4,), ("asym",), (32,)),
    # The grid of the file that the model comes from.
    Weights(4, "asym", 32, "hqq_float"),
    *(Weights(4, "asym", 128, algorithm) for algorithm in ("rtn", "gptq")),
    *(Weights(4, "sym", 32, algorithm) for algorithm in ("rtn", "gptq")),
    *(Weights(2, "asym", 32, each) for each in ("rtn", "gptq", "gptq_act_mse", "gptq_mse", "awq")),
    Weights(8, "asym", 32, "rtn"),
)


def of_smollm2(folder: Path) -> None:
    from benchmarks.language.decoding import no_past
    from benchmarks.language.decoding import one_token
    from benchmarks.language.perplexity import perplexity
    from benchmarks.language.smollm2 import SmolLM2
    from benchmarks.language.text import calibration_tokens
    from benchmarks.language.text import evaluation_tokens

    source = SmolLM2.open()
    path = source.write(folder / "smollm2", with_past=True)
    tokenizer, shape = source.tokenizer(), source.shape
    past = no_past(shape)

    class WithoutPast:
        def __init__(self, session: Any) -> None:
            self._session = session

        def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
            return self._session.run(outputs, {**feed, **past})

    texts = evaluation_tokens(tokenizer)[:TEXTS]

    measure(
        "SmolLM2-135M: perplexity on 1,024 tokens; the time is that of one token after 64 others",
        path,
        [{"tokens": tokens, **past} for tokens in calibration_tokens(tokenizer)],
        SMOLLM2_WEIGHTS,
        lambda session: perplexity(WithoutPast(session), texts),
        lambda model: one_token(model.session, shape, texts[0]),
        metric="perplexity",
        kept="embedding",
        fallback=False,  # Its sensitivities take minutes.
        recipes={
            "static": ["smooth_quant", "weight_correction", "fast_bias_correction"],
            "dynamic": ["smooth_quant"],
        },
    )


def run(cases: Path | None) -> None:
    from benchmarks.language.smollm2 import is_installed

    chosen = os.environ.get("OPTUNA_QUANT_WAYS", " ".join((*CASES, "smollm2"))).split()
    for name in CASES:
        if cases is not None and name in chosen:
            of_case(cases / name)
    if "smollm2" in chosen and is_installed():
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            of_smollm2(Path(os.environ.get("OPTUNA_QUANT_LANGUAGE", folder)))
