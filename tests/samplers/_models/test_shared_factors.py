"""Which ops share a factor of their errors in a model of repeated blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from statistics import mean
from typing import Any

import optuna
import pytest
from samplers.simulated import CRITERION
from samplers.simulated import configs_of
from samplers.simulated import met
from samplers.simulated import searched
from spaces import make_space

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import ParetoQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import study_prior
from optuna_quant.samplers._models.shared_factors import shared_factors
from optuna_quant.space.blocks import Block
from optuna_quant.space.config import QuantConfig


BLOCKS = [
    Block("b0", "f", ("a", "b", "c")),
    Block("b1", "f", ("d", "e", "elsewhere")),
    Block("b2", "other", ("g", "h")),
]


def test_ops_share_with_their_block_and_with_their_place_in_its_family() -> None:
    """An op with which nothing is shared has no number; neither has one of no block."""
    tunables = make_space([(name, "Conv") for name in "abcdefgh"]).tunables
    found = shared_factors(tunables, BLOCKS)
    assert found is not None
    assert found.tolist() == [[0, 0, 0, 1, 1, -1, 2, 2], [3, 4, -1, 3, 4, -1, -1, -1]]


def test_tied_ops_share_what_all_of_them_have_in_common() -> None:
    space = make_space([(name, "Conv") for name in "abcde"])
    by_place = space.group({"g": ["a", "d"]}).tunables
    found = shared_factors(by_place, BLOCKS)
    assert found is not None
    assert [tunable.ops for tunable in by_place] == [("a", "d"), ("b",), ("c",), ("e",)]
    assert found.tolist() == [[-1, 0, 0, -1], [-1, 1, -1, 1]]
    in_block = space.group({"g": ["b", "c"]}).tunables
    found = shared_factors(in_block, BLOCKS)
    assert found is not None
    assert [tunable.ops for tunable in in_block] == [("a",), ("b", "c"), ("d",), ("e",)]
    assert found.tolist() == [[0, 0, 1, 1], [2, -1, 2, -1]]


def test_without_blocks_nothing_is_shared() -> None:
    tunables = make_space([(name, "Conv") for name in "ab"]).tunables
    assert shared_factors(tunables, []) is None
    assert shared_factors(tunables, [Block("b", "f", ("a",)), Block("c", "g", ("b",))]) is None


# In a search.

PER_BLOCK, COUNT = 5, 6
NAMES = [f"op{i}" for i in range(PER_BLOCK * COUNT)]
SPACE = make_space([(name, "Conv") for name in NAMES])
PARTS = [Block(f"b{i}", "layer", tuple(NAMES[i * PER_BLOCK :][:PER_BLOCK])) for i in range(COUNT)]
HARD = {
    "one block": range(2 * PER_BLOCK, 3 * PER_BLOCK),
    "one place": range(3, PER_BLOCK * COUNT, PER_BLOCK),
    "first and last block": [*range(PER_BLOCK), *range(PER_BLOCK * (COUNT - 1), len(NAMES))],
}


def metric_of(hard: str) -> Any:
    """A metric that hard ops spoil, each by itself."""
    lost = dict.fromkeys(NAMES, 1e-5) | {NAMES[i]: 0.011 + 1e-4 * i for i in HARD[hard]}
    return lambda config: 0.9 - sum(lost[op] for op in config.quantized_ops)


@cache
def searched_with(hard: str, *blocks: Block) -> optuna.Study:
    """A whole search; nothing may be added to it."""
    sampler = SurrogateQuantSampler(SPACE, criterion=CRITERION, blocks=blocks)
    return searched(sampler, metric_of(hard))


def fallback_of(study: optuna.Study) -> tuple[str, ...]:
    return min((config.fallback_ops for config in met(study, SPACE)), key=len, default=NAMES)


@pytest.mark.parametrize(
    ("hard", "part"),
    [
        ("one block", 1.0),
        ("one place", 0.5),
        pytest.param("first and last block", 0.7, marks=pytest.mark.slow),
    ],
)
def test_what_is_hard_together_is_found_in_fewer_trials(hard: str, part: float) -> None:
    """Blocks, and places in blocks, are blamed as wholes, with an answer that has no other op."""
    alone, shared = searched_with(hard), searched_with(hard, *PARTS)
    expected = {NAMES[i] for i in HARD[hard]}
    assert set(fallback_of(shared)) == set(fallback_of(alone)) == expected
    assert len(shared.trials) <= part * len(alone.trials)


def test_where_sensitivities_are_known_blocks_change_nothing() -> None:
    metric = metric_of("one place")
    searches = [
        searched(
            SurrogateQuantSampler(
                SPACE, criterion=CRITERION, sensitivity=scores_of, blocks=blocks
            ),
            metric,
        )
        for blocks in (PARTS, ())
    ]
    one, other = ([c.key for c in configs_of(study, SPACE)] for study in searches)
    assert one == other


def scores_of(config: QuantConfig, ops: Any) -> Mapping[str, float]:
    return {op: 1.0 + NAMES.index(op) % 7 for op in ops}


def test_the_study_keeps_the_blocks_and_all_workers_learn_from_them() -> None:
    """A sampler without blocks, or with others, goes on as the first one would."""
    metric = metric_of("one block")

    def sampler(blocks: Any) -> SurrogateQuantSampler:
        return SurrogateQuantSampler(SPACE, criterion=CRITERION, blocks=blocks)

    whole = [c.key for c in configs_of(searched_with("one block", *PARTS), SPACE)]
    study = optuna.create_study(direction="maximize", sampler=sampler(PARTS))
    for i in range(len(whole) + 1):
        study.sampler = sampler([PARTS, (), PARTS[:2]][i % 3])
        study.optimize(lambda trial: metric(SPACE.suggest(trial)), n_trials=1)
    assert [c.key for c in configs_of(study, SPACE)] == whole
    said = [str(sampler(blocks).explain(study)) for blocks in (PARTS, ())]
    assert said[0] == said[1]
    beliefs = [sampler(blocks).beliefs(study) for blocks in (PARTS, ())]
    assert beliefs[0] == beliefs[1]


def test_what_its_blocks_have_taught_is_part_of_a_prior() -> None:
    """All ops of a block that failed are expected to lose more in the next study."""
    metric = metric_of("one block")
    factors = []
    for blocks in (PARTS, ()):
        sampler = SurrogateQuantSampler(SPACE, criterion=CRITERION, blocks=blocks)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        quantized = SPACE.default().ops["op0"]
        for ops in ((), PARTS[2].ops[:1], PARTS[4].ops[:1]):
            config = SPACE.fp32().with_ops(dict.fromkeys(ops, quantized))
            study.enqueue_trial(SPACE.params_of(config))
        study.optimize(lambda trial: metric(SPACE.suggest(trial)), n_trials=3)
        factors.append(study_prior(study).factors)
    label = SPACE.default().ops["op0"].label
    with_blocks, alone = (
        mean(found[op][label] for op in PARTS[2].ops[1:]) - found["op0"][label]
        for found in factors
    )
    assert alone == pytest.approx(0.0)
    assert with_blocks > 0.2


def test_the_front_learns_from_blocks_as_well() -> None:
    metric = metric_of("one block")
    sampler = ParetoQuantSampler(SPACE, criterion=CRITERION, blocks=PARTS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: metric(SPACE.suggest(trial)), n_trials=6)
    other = ParetoQuantSampler(SPACE, criterion=CRITERION)
    assert other.beliefs(study) == sampler.beliefs(study)


def test_what_are_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks must be a list of blocks, .* but got 'b0'"):
        SurrogateQuantSampler(SPACE, criterion=AccuracyCriterion(), blocks=["b0"])  # type: ignore[list-item]
