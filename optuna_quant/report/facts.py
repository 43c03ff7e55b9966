"""The facts of a report, as values. ``docs/report.md`` describes every field.

What is not known is None, or empty where several things are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


FORMAT = 1
"""The version of the fields. It grows when one is removed, renamed or means something else."""

SEARCH, RECORD = "search", "record"


@dataclass(frozen=True, kw_only=True)
class OutcomeFacts:
    """What the search has ended with."""

    kind: str
    label: str
    headline: str
    met: bool
    is_better_than_fp32: bool | None
    is_fp32: bool
    is_reproducible: bool
    warnings: tuple[str, ...]
    other_recipes: tuple[str, ...]
    summary: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EnvironmentFacts:
    """Where the search ran."""

    versions: Mapping[str, str]
    system: str | None
    cores: int | None
    measured_on: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class InputFacts:
    """An input of the model."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The model that was quantized."""

    file: str | None
    fingerprint: str | None
    nbytes: int | None
    ops: int | None
    ops_in_space: int
    op_types: Mapping[str, int]
    inputs: tuple[InputFacts, ...]
    original: str
    target: str | None


@dataclass(frozen=True, kw_only=True)
class CriterionFacts:
    """When a metric is good enough."""

    text: str
    criterion: str
    tolerable_loss: float
    tolerable_loss_text: str
    higher_is_better: bool
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class BaselineFacts:
    """The model that is compared with."""

    metric: float
    trial: int | None
    samples: int | None


@dataclass(frozen=True, kw_only=True)
class SecondEvaluationFacts:
    """What evaluating the answer again has given."""

    done: bool
    agrees: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class HoldoutFacts:
    """The answer on the hold-out set."""

    metric: float | None
    baseline: float | None
    loss: float | None
    loss_interval: tuple[float, float] | None
    met: bool | None
    samples: int | None
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class SimulationFacts:
    """What the simulation of the answer gave, and how far the answer itself is from it."""

    metric: float
    metric_difference: float | None
    samples: int | None
    of: str | None
    agreement: float | None
    largest_difference: float | None
    relative_difference: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class AnswerFacts:
    """The model that the report is about; it meets the criterion only if the outcome says so."""

    trial: int
    metric: float | None
    loss: float | None
    loss_text: str | None
    loss_interval: tuple[float, float] | None
    models_compared: int
    samples: int | None
    of_samples: int | None
    objective: str
    cost: float | None
    cost_text: str | None
    nbytes: int | None
    quantized_ops: int
    fallback_ops: int
    left_out_ops: int
    runs: str
    recipes: Mapping[str, str]
    calibration_size: int | None
    other_params: Mapping[str, object]
    note: str | None
    batches: str | None
    simulation: SimulationFacts | None
    second_evaluation: SecondEvaluationFacts | None
    holdout: HoldoutFacts | None


@dataclass(frozen=True, kw_only=True)
class GainFacts:
    """Time and size beside the model that is compared with, as they were measured."""

    seconds: float | None
    fp32_seconds: float | None
    time_ratio: float | None
    time_ratio_interval: tuple[float, float] | None
    is_faster: bool | None
    nbytes: int | None
    fp32_bytes: int | None
    batch: int | None
    threads: int | None
    runs: int
    text: str


@dataclass(frozen=True, kw_only=True)
class OpFacts:
    """One op: what was asked, what runs, and why."""

    op: str
    op_type: str
    state: str
    precision: str
    mode: str
    activation: str
    weight: str
    accuracy_level: int | None
    runs: str
    as_asked: bool | None
    note: str
    seconds_gained: float | None
    bytes_gained: float | None
    gained: float | None
    error_share: float | None
    of_activations: float | None
    expected_loss: float | None
    why: str


@dataclass(frozen=True, kw_only=True)
class NotSearchedFacts:
    """Ops that stay as they are because the search did not look at them, for one reason."""

    reason: str
    remedy: str
    op_types: Mapping[str, int]
    ops: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """What was evaluated for one stage of the strategy."""

    name: str
    trials: int
    reused: int
    failed: int
    evaluations: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """One trial."""

    number: int
    stage: str | None
    outcome: str
    metric: float | None
    loss: float | None
    samples: int | None
    of_samples: int | None
    fallback_ops: int
    nbytes: int | None
    costs: Mapping[str, float]
    seconds: float | None
    reused_from: int | None
    continues: int | None
    other_params: Mapping[str, object]
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class SearchFacts:
    """How the search went."""

    study: str
    strategy: str | None
    objective: str
    stopped_because: str
    message: str
    started: str | None
    ended: str | None
    workers: int
    stages: tuple[StageFacts, ...]
    trials: tuple[TrialFacts, ...]
    races: tuple[str, ...]
    abandoned: tuple[str, ...]
    explanation: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PartOfTime:
    """What a part of the time was spent on."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TimeFacts:
    """Where the time went, as far as the record tells."""

    elapsed_seconds: float | None
    worker_seconds: float
    parts: tuple[PartOfTime, ...]


@dataclass(frozen=True, kw_only=True)
class EffortFacts:
    """How much was evaluated, in full-evaluation equivalents."""

    trials: int
    models: int
    full_evaluations: float
    sensitivity_evaluations: float
    second_evaluations: float


@dataclass(frozen=True, kw_only=True)
class ReproduceFacts:
    """What it takes to repeat the search."""

    language: str | None
    code: str | None
    seed: int | None
    models_depend_on: Mapping[str, str]
    metrics_depend_on: Mapping[str, str]
    config: Mapping[str, object] | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All facts of a result."""

    format: int
    source: str
    title: str
    outcome: OutcomeFacts
    environment: EnvironmentFacts
    model: ModelFacts
    criterion: CriterionFacts
    baseline: BaselineFacts | None
    answer: AnswerFacts | None
    gain: GainFacts | None
    ops: tuple[OpFacts, ...]
    not_searched: tuple[NotSearchedFacts, ...]
    search: SearchFacts
    time: TimeFacts
    effort: EffortFacts
    reproduce: ReproduceFacts
