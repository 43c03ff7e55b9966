"""Studies made by hand, of which every figure that plots show is known."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
import datetime
import json
from typing import Any

from costed_backend import table
import numpy as np
import optuna
from optuna.trial import TrialState
from spaces import STATIC
from spaces import make_space

from optuna_quant import AccuracyCriterion
from optuna_quant.backends.base import GraphNode
from optuna_quant.costs import Costs
from optuna_quant.costs import Validation
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.space.blocks import Block
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.blobs import write_text
from optuna_quant.study.evidence import Evidence
from optuna_quant.study.population_record import write_population
from optuna_quant.study.sample_record import write_scores
from optuna_quant.study.space_signature import check_space


START = datetime.datetime(2024, 1, 1, 12, 0, 0)
HALF = OpConfig("fp16")
BITS_4 = OpConfig("weight_only", None, TensorConfig("int4", "asym", "per_group", "rtn", 32))
OPTIONS = (STATIC, BITS_4, HALF, FP32)
FP32_BYTES = 4000
SAMPLES = 100


def hand_made(
    ops: int | Sequence[str] = 3, *, storage: Any = None, options: Sequence[OpConfig] = OPTIONS
) -> tuple[optuna.Study, TuningSpace]:
    """A study without trials, with a criterion of 1% and the FP32 metric 0.9.

    Args:
        ops:
            The ops, or how many.
        storage:
            The storage.
        options:
            The options of each op.
    """
    names = [f"op{i}" for i in range(ops)] if isinstance(ops, int) else ops
    space = make_space([(name, "Conv") for name in names], options)
    study = optuna.create_study(direction="maximize", storage=storage, study_name="hand-made")
    check_space(study, space)
    criterion = AccuracyCriterion(criterion="relative", tolerable_loss=0.01)
    study.set_user_attr(record.CRITERION, asdict(criterion))
    study.set_user_attr(record.OBJECTIVE, "size")
    set_baseline(study, Baseline(0.9, 0))
    return study, space


def add(
    study: optuna.Study,
    space: TuningSpace,
    config: QuantConfig,
    *,
    metric: float | None,
    stage: str = "stage",
    worker: str = "machine 1",
    size: int | None = None,
    seconds: tuple[float, float | None] = (0.0, 1.0),
    evidence: Evidence | None = None,
    scores: Sequence[float] | None = None,
    population: str = "",
    reused_from: int | None = None,
    state: TrialState | None = None,
) -> int:
    """Add a trial as the library records it.

    Args:
        study:
            The study.
        space:
            Its space.
        config:
            How its model is quantized.
        metric:
            Its metric; None if it was not evaluated in full.
        stage:
            The stage that it was evaluated for.
        worker:
            Who ran it.
        size:
            The bytes of its model.
        seconds:
            When it started and ended.
        evidence:
            What its samples said.
        scores:
            Their scores.
        population:
            The key of their population.
        reused_from:
            The trial whose result it took over.
        state:
            Its state. Default: complete, or pruned without a metric.

    Returns:
        Its number.
    """
    number = len(study.get_trials(deepcopy=False))
    attrs: dict[str, Any] = {record.FALLBACK_OPS: len(config.fallback_ops)}
    attrs[record.FINGERPRINT] = config.key
    if size is not None:
        attrs[record.MODEL_BYTES] = size
    if reused_from is not None:
        attrs[record.REUSED_FROM] = reused_from
    if evidence is not None:
        attrs[record.EVIDENCE] = evidence.to_attr()
    claim = record.Claim(number, config.key, stage, worker)
    system: dict[str, Any] = {record.CLAIM: claim.to_attr()}
    if scores is not None:
        write_scores(
            system.__setitem__, np.asarray(scores), decision="open", population=population
        )
    if state is None:
        state = TrialState.PRUNED if metric is None else TrialState.COMPLETE
    start, end = (
        None if each is None else START + datetime.timedelta(seconds=each) for each in seconds
    )
    trial = optuna.trial.create_trial(
        state=state,
        value=metric,
        params=space.params_of(config),
        distributions=space.distributions(),
        user_attrs=attrs,
        system_attrs=system,
    )
    trial.datetime_start, trial.datetime_complete = start, end
    study.add_trial(trial)
    return number


def add_baseline(study: optuna.Study, space: TuningSpace) -> None:
    """Add the trial that has measured FP32."""
    add(study, space, space.fp32(), metric=0.9, stage="baseline", size=FP32_BYTES)


def keep_scores(study: optuna.Study, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Keep the sensitivities of options, as strategies do."""
    data = json.dumps({"scores": scores, "passes": 10.0, "of_weights": {}}).encode()
    write_bytes(study, f"{record.OPTION_SCORES}:{'0' * 16}", data)


def keep_costs(
    study: optuna.Study,
    space: TuningSpace,
    *,
    quantized: Mapping[str, float],
    sizes: Mapping[str, float] | None = None,
    validation: Validation | None = None,
) -> None:
    """Keep measured costs: of an op 1 ms and 100 bytes in FP32, and what is given quantized."""
    tables = {} if not quantized else {"latency": table(space, quantized)}
    if sizes is not None:
        fixed = FP32_BYTES - 100.0 * len(sizes)
        tables["size"] = table(space, sizes, measure="size", fixed=fixed)
    costs = Costs(tables, {}, validation)
    write_text(study, f"{record.MEASURED_COSTS}:{'0' * 32}", costs.dumps())


def keep_population(study: optuna.Study, *, right: int = 90, method: str = "paired") -> Population:
    """Keep samples, of which FP32 gets the first right; and refer to them from the baseline."""
    levels = np.zeros(SAMPLES, np.uint8)
    population = Population(
        order=SampleOrder.draw(levels, seed=0),
        baseline=(np.arange(SAMPLES) < right).astype(float),
        bounds=(0.0, 1.0),
        method=method,
        metric_name="accuracy",
    )
    key = write_population(study, population, levels=levels, seed=0)
    set_baseline(study, Baseline(right / SAMPLES, 0, key))
    return population


def searched(ops: int | Sequence[str] = 3, *, storage: Any = None) -> optuna.Study:
    """A study with all that the plots show.

    Its trials: FP32; all in 8 bits, given up after 50 samples; the first op in FP32, which meets
    the criterion; the first op in float16 and the second in 4 bits, which does not; and one that
    was evaluated in part.
    """
    study, space = hand_made(ops, storage=storage)
    names = [tunable.name for tunable in space.tunables]
    population = keep_population(study)
    right = population.baseline_in_order
    add_baseline(study, space)
    default = space.default()
    wrong = right[:50] * (np.arange(50) >= 20)
    fails = Evidence(samples=50, of=SAMPLES, decision="fails", estimate=0.6, bounds=(0.3, 0.8))
    add(
        study, space, default, metric=None, size=1000, stage="default", seconds=(1, 2),
        evidence=fails, scores=wrong,
    )  # fmt: skip
    good = default.with_ops({names[0]: FP32})
    add(study, space, good, metric=0.9, size=1900, seconds=(2, 5), scores=right)
    other = default.with_ops({names[0]: HALF, names[1]: BITS_4})
    add(study, space, other, metric=0.85, size=1500, seconds=(2.5, 4), worker="machine 2")
    part = Evidence(samples=50, of=SAMPLES, decision="open", estimate=0.89, bounds=(0.5, 0.95))
    last = default.with_ops({names[-1]: FP32})
    add(
        study, space, last, metric=None, size=1800, seconds=(5, 6), evidence=part,
        scores=right[:50],
    )  # fmt: skip
    scores = {name: {STATIC.label: 0.01 * (i + 1)} for i, name in enumerate(names)}
    keep_scores(study, scores)
    keep_costs(
        study,
        space,
        quantized={name: 0.25 for name in names},
        sizes={name: 0.5 for name in names},
        validation=Validation((1e-3, 2e-3, 3e-3), (1.1e-3, 1.9e-3, 3.2e-3), 1e-4, 1.0),
    )
    return study


class GraphBackend:
    """A backend of which only the graph is asked for: a chain, in blocks if they are given.

    Args:
        ops:
            The names of the ops.
        block:
            How many ops a block has; 0 for no blocks.
    """

    def __init__(self, ops: Sequence[str], *, block: int = 0) -> None:
        self._ops = list(ops)
        self._block = block

    def tuning_space(self) -> None:
        raise AssertionError("The space is in the record.")

    def graph_nodes(self) -> list[GraphNode]:
        """Behind every op a Relu, which the next one reads."""
        nodes: list[GraphNode] = []
        before: tuple[str, ...] = ()
        for op in self._ops:
            nodes += [GraphNode(op, "Conv", before), GraphNode(f"{op}/relu", "Relu", (op,))]
            before = (f"{op}/relu",)
        return nodes

    def blocks(self) -> list[Block]:
        count = len(self._ops) // self._block if self._block else 0
        groups = [self._ops[i * self._block : (i + 1) * self._block] for i in range(count)]
        return [Block(f"block{i}", "family0", tuple(ops)) for i, ops in enumerate(groups)]
