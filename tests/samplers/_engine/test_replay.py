"""A plan is advanced as far as the record goes, and no further."""

from __future__ import annotations

from collections.abc import Mapping
import math

import pytest
from spaces import make_space

from optuna_quant.samplers._engine.replay import Replay
from optuna_quant.samplers._engine.replay import typical
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Scoring
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


SPACE = make_space(2)
A, B, C = (SPACE.config_at(i) for i in range(3))


class Record:
    """Scores by configuration, and how far each was asked for."""

    def __init__(self, *known: QuantConfig) -> None:
        self.scores = {config.key: float(i) for i, config in enumerate(known)}
        self.asked: list[tuple[str, Fidelity]] = []
        self.sensitivities: Mapping[str, float] | None = None

    def evaluate(self, config: QuantConfig, fidelity: Fidelity) -> Evaluation | None:
        self.asked.append((config.key, fidelity))
        score = self.scores.get(config.key)
        return None if score is None else Evaluation(config, score, met=False)

    def replay(self, plan: Plan) -> Replay:
        found = Replay(plan, self.evaluate, lambda: None, lambda wanted: self.sensitivities)
        found.advance()
        return found


def one_by_one(received: list[float]) -> Plan:
    for name, config in (("first", A), ("second", B)):
        (result,) = yield Stage(name, [config], provisional=name == "first")
        received.append(result.score)


def test_it_stops_at_the_first_stage_that_lacks_a_result() -> None:
    received: list[float] = []
    replay = Record(A).replay(one_by_one(received))
    assert received == [0.0]
    assert replay.stage == Stage("second", [B])
    assert list(replay.waiting()) == [B]
    assert not replay.is_over


def test_it_is_over_when_the_plan_is() -> None:
    received: list[float] = []
    replay = Record(A, B).replay(one_by_one(received))
    assert received == [0.0, 1.0]
    assert replay.is_over
    assert list(replay.waiting()) == []


def test_only_stages_that_are_not_provisional_have_answers() -> None:
    record = Record(A)
    replay = record.replay(one_by_one([]))
    assert replay.answers == {B.key}
    assert replay.asked_for == {A.key, B.key}
    assert record.asked == [(A.key, DECIDED), (B.key, FULL)]


def test_results_come_in_the_order_of_the_stage() -> None:
    received: list[QuantConfig] = []

    def plan() -> Plan:
        results = yield Stage("all", [C, A, B])
        received.extend(result.config for result in results)

    Record(A, B, C).replay(plan())
    assert received == [C, A, B]


def test_what_is_known_of_a_stage_is_kept_while_the_rest_is_waited_for() -> None:
    record = Record(B)

    def plan() -> Plan:
        yield Stage("all", [A, B, C])

    replay = record.replay(plan())
    assert replay.known.keys() == {B.key}
    assert list(replay.waiting()) == [A, C]
    record.scores |= {A.key: 1.0, C.key: 2.0}
    replay.advance()
    assert replay.is_over


def test_a_guess_completes_a_stage_and_what_follows_is_asked_for() -> None:
    received: list[float] = []
    replay = Record().replay(one_by_one(received))
    replay.assume(lambda stage, known, config: Evaluation(config, 7.0, met=False))
    assert received == [7.0]
    assert list(replay.waiting()) == [B]


def test_a_plan_waits_for_scores() -> None:
    record, received = Record(A), list[Mapping[str, float]]()
    wanted = Scoring(A, ("op0",))

    def plan() -> Plan:
        received.append((yield wanted))
        yield Stage("all", [A])

    replay = record.replay(plan())
    assert replay.scoring == wanted and not replay.is_over
    record.sensitivities = {"op0": 0.5}
    replay.advance()
    assert received == [{"op0": 0.5}]
    assert replay.is_over


def test_a_race_without_samples_ranks_full_evaluations() -> None:
    received: list[float] = []

    def plan() -> Plan:
        results = yield Race("rank", [A, B, C])
        received.extend(result.score for result in results)

    record = Record(A, B)
    replay = record.replay(plan())
    assert list(replay.waiting()) == [C]
    assert replay.answers == set()
    assert replay.fidelity == FULL
    record.scores[C.key] = 2.0
    replay.advance()
    assert received == [0.0, 1.0, 2.0]
    assert len(replay.race_runs) == 1


def test_whether_there_are_samples_is_answered_at_once() -> None:
    received: list[bool] = []

    def plan() -> Plan:
        received.append((yield HasPerSampleScores()))
        yield Stage("all", [A])

    Record().replay(plan())
    assert received == [False]


def test_what_is_no_request_is_named() -> None:
    def plan() -> Plan:
        yield [A]  # type: ignore[misc]

    with pytest.raises(TypeError, match=r"has yielded list.*yield Stage"):
        Record().replay(plan())


def test_a_typical_result_is_the_median_of_the_stage() -> None:
    known = {str(score): Evaluation(A, score) for score in (3.0, 1.0, 2.0)}
    assert typical(known, B) == Evaluation(B, 2.0, met=False)
    assert typical({}, B).score == -math.inf
