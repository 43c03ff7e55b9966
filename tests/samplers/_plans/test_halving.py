"""Group testing by halves: which groups are tried, how many, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import pytest
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import evaluated
from spaces import make_space
from staged_search import loss_per_op
from staged_search import searched

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ConservativeQuantSampler
from optuna_quant.samplers import HAWQV2QuantSampler
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import MSEV2QuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.halving import changes_to
from optuna_quant.samplers._plans.halving import grow_by_halves
from optuna_quant.samplers._plans.halving import without
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def grown(
    count: int, meets: Callable[[Collection[str]], bool], **options: Any
) -> tuple[list[str], str]:
    """The configurations that are tried, and what is found; s or f for each op."""
    space = make_space(count)
    changes = changes_to(space, space.default())
    plan = grow_by_halves("stage", without(space.default(), changes), changes, **options)
    tried: list[str] = []
    try:
        request = next(plan)
        while True:
            assert isinstance(request, Stage)
            assert request.provisional
            (config,) = request.configs
            tried.append(letters(config))
            request = plan.send([Evaluation(config, 0.0, met=meets(config.quantized_ops))])
    except StopIteration as end:
        return tried, letters(end.value)


def letters(config: QuantConfig) -> str:
    return "".join("s" if option.is_quantized else "f" for option in config.ops.values())


def test_first_something_then_the_largest() -> None:
    tried, found = grown(8, lambda ops: "op0" not in ops and "op5" not in ops)
    assert tried == [
        # Until something fits: the first half of what did not.
        "ssssffff",
        "ssffffff",
        "sfffffff",
        "fsffffff",
        # op1 fits. The largest group is next, and of equally large ones the first.
        "fsffssss",
        "fsssffff",
        "fsssssff",
        "fsssffss",
        # op4 and op5 did not fit together.
        "fssssfss",
    ]
    assert found == "fssssfss"


def test_the_other_half_of_what_fits_is_not_tried() -> None:
    tried, found = grown(4, lambda ops: "op3" not in ops)
    # All together fail and op0 and op1 fit, so op2 and op3 cannot; nor can op3 beside op2.
    assert tried == ["ssff", "sssf"]
    assert found == "sssf"


def test_all_together_first_unless_known_to_fail() -> None:
    assert grown(4, lambda ops: True, fails=False) == (["ssss"], "ssss")
    tried, found = grown(4, lambda ops: not ops, fails=False)
    assert tried[0] == "ssss"
    assert found == "ffff"
    assert grown(1, lambda ops: True) == ([], "f")


def test_a_limit_leaves_what_is_open() -> None:
    tried, found = grown(16, lambda ops: "op2" not in ops, most=3)
    full, _ = grown(16, lambda ops: "op2" not in ops)
    assert tried == full[:3]
    assert found.count("s") >= 2


@pytest.mark.parametrize("count", [2, 7, 64, 110])
@pytest.mark.parametrize("bad", [1, 2, 3, 8])
def test_few_evaluations_for_few_that_do_not_fit(count: int, bad: int) -> None:
    rng = np.random.default_rng(count + bad)
    for _ in range(10):
        names = {f"op{i}" for i in rng.choice(count, min(bad, count), replace=False)}
        tried, found = grown(count, lambda ops, names=names: not names & set(ops))
        assert {f"op{i}" for i, letter in enumerate(found) if letter == "f"} == names
        assert len(set(tried)) == len(tried)
        assert len(tried) <= 2 * len(names) * (math.log2(count / len(names)) + 1)


def test_something_fits_after_few_evaluations_wherever_the_bad_ones_are() -> None:
    for bad in range(110):
        fits: list[bool] = []

        def meets(ops: Collection[str], bad: int = bad, fits: list[bool] = fits) -> bool:
            fits.append(f"op{bad}" not in ops)
            return fits[-1]

        grown(110, meets)
        assert True in fits[: math.ceil(math.log2(110)) + 1]


# In a study.


class Sensitivity:
    """Scores ops by a given number each."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        return {op: self.scores[op] for op in ops}


def test_conservative_halves_a_type_before_it_ranks() -> None:
    losses = dict.fromkeys([f"op{i}" for i in range(8)], 0.001) | {"op5": 0.3}
    sampler = ConservativeQuantSampler(make_space(8), criterion=CRITERION)
    _, lines = searched(sampler, loss_per_op(**losses))
    assert lines == [
        "baseline: ffffffff",
        "convert everything: ssssssss",
        "convert Conv by halves: ssssffff",
        "convert Conv by halves: ssssssff",
        "convert Conv by halves: ssssffss",
        "convert Conv by halves: sssssfss",
    ]


def test_conservative_takes_the_least_sensitive_half_first() -> None:
    losses = {f"op{i}": 0.2 if i in (0, 1) else 0.001 for i in range(8)}
    sampler = ConservativeQuantSampler(
        make_space(8), criterion=CRITERION, sensitivity=Sensitivity(losses)
    )
    _, lines = searched(sampler, loss_per_op(**losses))
    assert lines == [
        "baseline: ffffffff",
        "convert everything: ssssssss",
        "convert Conv by halves: ffffssss",
        "convert Conv by halves: ffssssss",
        "convert Conv by halves: fsssssss",
        "convert Conv by halves: sfssssss",
        # The answer is there. A search that goes on looks for others that fit better together.
        "convert Conv op by op, one by one: sfffffff",
        "convert Conv op by op, one by one: fsffffff",
        "convert Conv op by op, one by one: ffsfffff",
        "convert Conv op by op, one by one: fffsffff",
        "convert Conv op by op, one by one: ffffsfff",
        "convert Conv op by op, one by one: fffffsff",
        "convert Conv op by op, one by one: ffffffsf",
        "convert Conv op by op, one by one: fffffffs",
    ]


def test_conservative_ranks_before_it_answers_where_many_do_not_fit() -> None:
    """The ops that come first use up the tolerance; the others do a tenth of the harm each."""
    losses = {f"op{i}": 0.045 if i < 4 else 0.005 for i in range(12)}
    space = make_space(12)
    study, lines = searched(
        ConservativeQuantSampler(space, criterion=CRITERION), loss_per_op(**losses)
    )
    fewest = min(
        len(config.fallback_ops)
        for trial, config in zip(study.trials, evaluated(study, space), strict=True)
        if trial.constraints[record.ACCURACY] <= 0
    )
    assert fewest == 3
    assert any(line.startswith("convert Conv op by op, one by one") for line in lines)


OPTIONS = (STATIC, STATIC_TENSOR, FP32)
HARMFUL = {f"op{i}": 0.2 if i in (2, 5) else 0.001 for i in range(8)}
MISLED = Sensitivity(dict(zip(HARMFUL, [5.0, 0.4, 3.0, 0.3, 0.2, 9.0, 8.0, 0.1], strict=True)))


def options_matter(config: QuantConfig) -> float:
    """Per-tensor weights do a little less harm."""
    share = {STATIC: 1.0, STATIC_TENSOR: 0.9, FP32: 0.0}
    return 1.0 - sum(loss * share[config[op]] for op, loss in HARMFUL.items())


def order(sampler: QuantSampler, most: int) -> list[str]:
    """Stages and options of the first trials after the default."""
    _, lines = searched(sampler, options_matter, most=most)
    assert lines[:2] == ["baseline: ffffffff", "default: ssssssss"]
    return lines[2:]


def test_basic_has_an_answer_before_it_asks_about_options_or_single_ops() -> None:
    sampler = BasicQuantSampler(make_space(8, OPTIONS), criterion=CRITERION)
    assert order(sampler, 13) == [
        # With 8 trials at most; here that suffices.
        "fallback by halves: ssssffff",
        "fallback by halves: ssffffff",
        "fallback by halves: ssffssss",
        "fallback by halves: ssffssff",
        "fallback by halves: ssffffss",
        "fallback by halves: sssfffss",
        "fallback by halves: ssfsffss",
        "fallback by halves: ssfssfss",
        "op-type-wise: tttttttt",
        # What could be quantized by default can be in the better option too; no more of it.
        "fallback by halves: ttfttftt",
        "fallback by halves: tttttftt",
    ]


def test_basic_as_neural_compressor_does_it_looks_for_nothing_by_halves() -> None:
    sampler = BasicQuantSampler(make_space(8, OPTIONS), criterion=CRITERION, compat="inc2")
    plain = BasicQuantSampler(make_space(8, OPTIONS), compat="inc2")
    assert order(sampler, 30) == order(plain, 30)
    assert not any("halves" in line for line in order(sampler, 30))


@pytest.mark.parametrize("kind", [MSEQuantSampler, HAWQV2QuantSampler])
def test_ranked_fallback_by_doubling_then_taken_back(kind: type) -> None:
    sampler = kind(make_space(8, OPTIONS), criterion=CRITERION, sensitivity=MISLED)
    assert order(sampler, 40) == [
        "accumulated fallback: sssssfss",
        "accumulated fallback: sssssffs",
        "accumulated fallback: fsfssffs",
        "accumulated fallback: fssssffs",
        "op-type-wise: tttttttt",
        "accumulated fallback: tttttftt",
        "accumulated fallback: tttttfft",
        "accumulated fallback: ftfttfft",
        "accumulated fallback: fttttfft",
        # op2 made the difference. All others, then the less sensitive half of them.
        "quantized again: ttfttttt",
        "quantized again: ttfttftt",
    ]


def test_mse_v2_doubles_what_it_adds() -> None:
    sampler = MSEV2QuantSampler(make_space(8, OPTIONS), criterion=CRITERION, sensitivity=MISLED)
    assert order(sampler, 40) == [
        "fallback of the most sensitive: sssssfss",
        "fallback of the most sensitive: sssssffs",
        "fallback of the most sensitive: fsfssffs",
        "op-type-wise: tttttttt",
        "fallback of the most sensitive: tttttftt",
        "fallback of the most sensitive: tttttfft",
        "fallback of the most sensitive: ftfttfft",
        "revert the least sensitive: fttttfft",
        "revert the least sensitive: ttfttfft",
        "revert the least sensitive: ttfttttt",
        "revert the least sensitive: ttfttftt",
    ]


@pytest.mark.parametrize("kind", [MSEQuantSampler, MSEV2QuantSampler, HAWQV2QuantSampler])
def test_ranked_fallback_can_be_walked(kind: type) -> None:
    def lines(**options: Any) -> list[str]:
        space = make_space(8, OPTIONS)
        return order(kind(space, criterion=CRITERION, sensitivity=MISLED, **options), 40)

    walked = lines(accumulate="walk")
    assert walked[:4] == [
        "op-type-wise: tttttttt",
        *(
            f"{walked[1].partition(':')[0]}: {ops}"
            for ops in ("tttttftt", "tttttfft", "ftttt" + "fft")
        ),
    ]
    assert lines(compat="inc2") == walked


# Ended early.

LOSSES = {f"op{i}": 0.4 if i in (7, 40, 41, 88) else 0.0004 for i in range(90)}


def together(config: QuantConfig) -> float:
    """What is hard does harm only where another hard op is quantized too."""
    hard = sum(config[op].is_quantized for op in ("op7", "op40", "op41", "op88"))
    return loss_per_op(**dict.fromkeys(LOSSES, 0.0004))(config) - 0.4 * max(hard - 1, 0)


def far_off(config: QuantConfig) -> float:
    """With any of the hard ops the model is no better than guessing."""
    hard = any(config[op].is_quantized for op in ("op7", "op40", "op41", "op88"))
    return 0.1 if hard else loss_per_op(**LOSSES)(config)


# Roughly right: some ops that are harmless stand before the hard ones.
SCORES = Sensitivity(
    {op: 5.0 if loss > 0.1 else i * 37 % 90 * 0.063 for i, (op, loss) in enumerate(LOSSES.items())}
)
STRATEGIES: dict[str, Callable[[TuningSpace], QuantSampler]] = {
    "conservative": lambda space: ConservativeQuantSampler(space, criterion=CRITERION),
    "basic": lambda space: BasicQuantSampler(space, criterion=CRITERION),
    "mse": lambda space: MSEQuantSampler(space, criterion=CRITERION, sensitivity=SCORES),
    "mse_v2": lambda space: MSEV2QuantSampler(space, criterion=CRITERION, sensitivity=SCORES),
    "hawq_v2": lambda space: HAWQV2QuantSampler(space, criterion=CRITERION, sensitivity=SCORES),
}
OF_SINGLE_OPS = ("instance-wise", "one by one")


_METRICS = [loss_per_op(**LOSSES), together, far_off]
METRICS = pytest.mark.parametrize("metric", _METRICS, ids=lambda m: m.__name__)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        # Each strategy with one metric, and each metric, are among those that are not slow.
        pytest.param(
            name,
            metric,
            id=f"{name}-{metric.__name__}",
            marks=() if i % len(_METRICS) == j else pytest.mark.slow,
        )
        for i, name in enumerate(STRATEGIES)
        for j, metric in enumerate(_METRICS)
    ],
)
def test_whenever_it_ends_most_ops_are_quantized(
    name: str, metric: Callable[[QuantConfig], float]
) -> None:
    kinds = [(op, "Conv" if i % 9 else "MatMul") for i, op in enumerate(LOSSES)]
    space = make_space(kinds, (STATIC, STATIC_TENSOR, OpConfig("static", STATIC.activation), FP32))
    study, lines = searched(STRATEGIES[name](space), metric, most=100)
    most, quantized = 0, []
    for trial, config, line in zip(study.trials, evaluated(study, space), lines, strict=True):
        if any(words in line for words in OF_SINGLE_OPS):
            # A trial per op is spent only where there is an answer worth having.
            assert most >= 80
        if trial.constraints[record.ACCURACY] <= 0:
            most = max(most, len(config.quantized_ops))
        quantized.append(most)
    quantized += [most] * (100 - len(quantized))
    assert quantized[9] >= 10
    assert quantized[19] >= 45
    assert quantized[49] >= 80
    assert quantized[99] >= 85


@METRICS
def test_auto_has_most_ops_quantized_soon(metric: Callable[[QuantConfig], float]) -> None:
    space = make_space(len(LOSSES))
    sampler = AutoQuantSampler(space, criterion=CRITERION, sensitivity=SCORES)
    study, _ = searched(sampler, metric, most=50)
    assert sampler.is_exhausted(study)
    met = [
        (trial.number, len(config.quantized_ops))
        for trial, config in zip(study.trials, evaluated(study, space), strict=True)
        if trial.constraints[record.ACCURACY] <= 0
    ]
    assert max(count for number, count in met if number < 10) >= 45
    assert max(count for _, count in met) >= 70
