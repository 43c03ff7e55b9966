"""Races: who is evaluated on how much, in which order, and what a race concludes."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
import optuna
from optuna.trial import TrialState
import pytest
from sample_models import CRITERION
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import backend_of
from sample_models import population_of
from sample_models import search

from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers._engine.race_run import RaceRun
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.sequential.race import mean_difference
from optuna_quant.sequential.race import rounds
from optuna_quant.sequential.weighted_threshold import estimate
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity
from optuna_quant.study.sample_record import samples_of
from optuna_quant.study.trial_view import TrialView


DAMAGE = {f"op{i}": 0.02 * i for i in range(8)}
BACKEND = backend_of(DAMAGE)
SPACE = BACKEND.tuning_space()
SCORES = SampleScores(DAMAGE, samples=4000, breaks="any", margins=False)
POPULATION = population_of(SCORES, BACKEND)
# One op quantized each: the more, the worse.
SINGLES = [SPACE.fp32().with_ops({op: SPACE.default().ops[op]}) for op in DAMAGE]


def scores_of(config: QuantConfig) -> NDArray[np.float64]:
    """The normalized scores of a configuration, in the order of evaluation."""
    return POPULATION.normalized(SCORES.scores_of(config)[POPULATION.order.indices])


@dataclass
class Record:
    """What was evaluated, as a race asks for it."""

    seen: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    asked: list[tuple[int, Fidelity]] = field(default_factory=list)

    def __call__(self, config: QuantConfig, fidelity: Fidelity) -> Evaluation | None:
        if config.key in self.failed:
            return Evaluation(config, -math.inf)
        wanted = fidelity.samples or POPULATION.samples
        seen = self.seen.get(config.key, 0)
        if seen < wanted:
            return None
        scores = scores_of(config)[:seen]
        value = POPULATION.metric(estimate(POPULATION, scores))
        return Evaluation(config, value, value, None, 0, scores)

    def evaluate(self, race_run: RaceRun, config: QuantConfig, *, further: int = 0) -> None:
        self.asked.append((SINGLES.index(config), race_run.fidelity))
        wanted = race_run.fidelity.samples or POPULATION.samples
        self.seen[config.key] = min(POPULATION.samples, wanted + further)


def run(
    race: Race, known: Record, *, population: Any = POPULATION, further: int = 0
) -> list[Evaluation]:
    """A race to its end, each round in the order that the race gives."""
    race_run = RaceRun(race, population)
    while (results := race_run.run(known)) is None:
        assert race_run.waiting
        for config in list(race_run.waiting.values()):
            known.evaluate(race_run, config, further=further)
    return results


def test_rounds_double_and_end_with_the_part() -> None:
    assert rounds(4000, count=4, fraction=1 / 8) == (63, 125, 250, 500)
    assert rounds(1000, count=4, fraction=1 / 8) == (32, 63, 125)
    assert rounds(20, count=4, fraction=1 / 8) == (20,)
    assert rounds(4000, count=1, fraction=1 / 16) == (250,)


def test_every_round_sees_the_better_half_in_its_order() -> None:
    known = Record()
    race = Race("race", list(reversed(SINGLES)), top_k=1, error_probability=1e-9)
    results = run(race, known)
    by_round = {}
    for number, fidelity in known.asked:
        by_round.setdefault(fidelity.samples or 0, []).append(number)
    sizes = rounds(4000, count=4, fraction=1 / 8)
    assert list(by_round) == [size for size in sizes if size in by_round]
    assert by_round[63] == list(reversed(range(8)))
    for before, after in zip(sizes, list(by_round)[1:], strict=False):
        leads = {
            n: mean_difference(POPULATION, scores_of(SINGLES[n])[:before])
            for n in by_round[before]
        }
        half = (len(leads) + 1) // 2
        best = sorted(by_round[before], key=lambda n: -leads[n])[:half]
        assert by_round[after] == [n for n in by_round[before] if n in best]
    # The order of the results is that of the configurations.
    assert [result.config for result in results] == race.configs
    ranked = sorted(results, key=lambda result: -result.score)
    assert ranked[0].config in [SINGLES[n] for n in by_round[max(by_round)]]
    # Who went out is at most as good as who went on.
    last = max(by_round)
    worst_left = min(r.score for r in results if SINGLES.index(r.config) in by_round[last])
    for result in results:
        if SINGLES.index(result.config) not in by_round[last]:
            assert result.score <= worst_left


def test_a_race_ends_when_its_order_is_clear() -> None:
    known = Record()
    run(Race("race", [SINGLES[0], SINGLES[7]], top_k=2), known)
    assert max(fidelity.samples or 4000 for _, fidelity in known.asked) < 500


def test_what_was_evaluated_further_changes_nothing() -> None:
    race = Race("race", SINGLES, top_k=2)
    plain = run(race, Record())
    for further in (1, 100, 4000):
        assert run(race, Record(), further=further) == plain
    known = Record({config.key: 4000 for config in SINGLES})
    assert run(race, known) == plain
    assert not known.asked


def test_some_that_are_complete_are_ranked_on_the_same_samples() -> None:
    race = Race("race", SINGLES, top_k=1)
    plain = run(race, Record())
    known = Record({SINGLES[3].key: 4000, SINGLES[0].key: 300})
    assert run(race, known) == plain


def test_without_samples_all_are_evaluated_in_full() -> None:
    known = Record()
    results = run(Race("race", SINGLES), known, population=None)
    assert known.asked == [(number, FULL) for number in range(8)]
    assert [result.value for result in results] == pytest.approx(
        [SCORES.metric(config) for config in SINGLES]
    )


def test_failed_configurations_go_out() -> None:
    known = Record(failed={SINGLES[0].key, SINGLES[2].key})
    results = run(Race("race", SINGLES), known)
    assert [math.isinf(r.score) for r in results] == [n in (0, 2) for n in range(8)]
    assert {number for number, _ in known.asked} == set(range(8)) - {0, 2}
    known = Record(failed={config.key for config in SINGLES[1:]})
    results = run(Race("race", SINGLES), known)
    assert len(known.asked) == 1
    assert results[0].scores is not None


def test_a_configuration_that_is_there_twice_is_evaluated_once() -> None:
    known = Record()
    race = Race("race", [SINGLES[1], SINGLES[6], SINGLES[1]])
    results = run(race, known)
    assert results[0] == results[2]
    assert len({(n, fidelity) for n, fidelity in known.asked}) == len(known.asked)


def test_a_race_of_one_needs_one_round() -> None:
    known = Record()
    run(Race("race", [SINGLES[1]]), known)
    assert known.asked == [(1, Fidelity(63))]


# In a study.


class Racing(StagedQuantSampler):
    """The default, a race of single fallbacks, and the best of them in full."""

    def plan(self, space: TuningSpace) -> Plan:
        yield Stage("default", [space.default()])
        singles = [space.default().with_fallback(op) for op in DAMAGE]
        results = yield Race("race", singles, top_k=1)
        best = max(results, key=lambda result: result.score)
        yield Stage("best", [best.config])


def study_of(**kwargs: Any) -> tuple[optuna.Study, QuantObjective, SampleScores]:
    study = optuna.create_study(
        direction="maximize",
        sampler=Racing(SPACE, criterion=CRITERION, **kwargs),
    )
    evaluation = SampleScores(DAMAGE, breaks="any")
    objective = QuantObjective(BACKEND, SPACE, evaluation, CRITERION, stopping=STOPPING)
    return study, objective, evaluation


def test_the_trials_of_a_race_are_exact() -> None:
    study, objective, evaluation = study_of()
    search(study, objective)
    claims = [TrialView(trial).claim for trial in study.trials]
    race = [
        (c.number, c.fidelity.samples or 0) for c in claims if c is not None and c.stage == "race"
    ]
    sizes = [size for _, size in race]
    assert sizes == sorted(sizes)
    assert sizes.count(32) == 8
    assert sizes.count(63) <= 4
    assert sizes.count(125) <= 2
    for number, size in race:
        trial = study.trials[number]
        assert trial.state == TrialState.PRUNED
        assert samples_of(trial.system_attrs) == size  # No batch goes beyond it.
        if size > 32:
            assert study.trials[trial.user_attrs[record.CONTINUES]].params == trial.params
    assert evaluation.most_repeats == 1


class Remembering(StagedQuantSampler):
    """A race, then everything in full; keeps what the race has told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[list[tuple[float, bool | None]]] = []

    def plan(self, space: TuningSpace) -> Plan:
        yield Stage("default", [space.default()])
        results = yield Race("race", SINGLES[1:], top_k=7, rounds=1, fraction=1 / 16)
        self.told.append([(result.score, result.met) for result in results])
        yield Stage("full", SINGLES[1:])


def test_a_plan_is_told_the_same_of_a_race_when_more_is_known() -> None:
    sampler = Remembering(SPACE, criterion=CRITERION)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    evaluation = SampleScores(DAMAGE, breaks="any")
    search(study, QuantObjective(BACKEND, SPACE, evaluation, CRITERION, stopping=STOPPING))
    again = Remembering(SPACE, criterion=CRITERION)
    study.sampler = again
    assert again.is_exhausted(study)
    first, last = sampler.told[0], again.told[-1]
    assert [score for score, _ in last] == [score for score, _ in first]
    open_then = [now for (_, then), (_, now) in zip(first, last, strict=True) if then is None]
    assert open_then
    # What fails now was open then; what is complete and meets is sure.
    assert False not in open_then
    assert any(trial.state == TrialState.PRUNED for trial in study.trials[-7:])


def test_a_race_reports_how_it_was_decided() -> None:
    known = Record()
    race_run = RaceRun(Race("race", SINGLES, top_k=1), POPULATION)
    assert race_run.report() is None
    while race_run.run(known) is None:
        for config in list(race_run.waiting.values()):
            known.evaluate(race_run, config)
    report = race_run.report()
    assert report is not None
    assert (report.name, report.entrants, report.confidence) == ("race", len(SINGLES), 0.95)
    by_round: dict[int, int] = {}
    for _, fidelity in known.asked:
        size = fidelity.samples or 0
        by_round[size] = by_round.get(size, 0) + 1
    assert dict(report.rounds) == by_round
    scores = {c.key: float(scores_of(c).mean()) for c in SINGLES}
    assert report.missed is not None
    assert max(scores.values()) - scores[report.best] <= report.missed < 1
    assert str(report).startswith(f"race: {len(SINGLES)} on 63 samples, ")


def test_a_race_in_full_has_nothing_to_report() -> None:
    known = Record()
    race_run = RaceRun(Race("race", SINGLES, top_k=1), None)
    while race_run.run(known) is None:
        for config in list(race_run.waiting.values()):
            known.evaluate(race_run, config)
    assert race_run.report() is None
