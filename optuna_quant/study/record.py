"""The attributes that this library writes to studies and trials, and claims.

Everything that decides a search is in the study. What people should see is in user attributes;
what only the samplers need is in system attributes, which all begin with ``optuna_quant:``.
How long values took to compute is beside them, see :mod:`optuna_quant.study.computing_times`.
:class:`~optuna_quant.study.trial_view.TrialView` reads those of a trial.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence


# System attribute of a trial.
CLAIM = "optuna_quant:claim"
"""What the trial has claimed, as :class:`Claim` writes it."""

WORKER = "optuna_quant:worker"
"""The process that runs the trial, written before it claims anything."""

HEARTBEAT = "optuna_quant:heartbeat"
"""The heartbeat: a counter that the worker of a running trial moves on as long as it lives."""

SCORES = "optuna_quant:scores"
"""The scores of the samples that were seen, see :mod:`optuna_quant.study.sample_record`."""

REPORTS = "optuna_quant:reports"
"""What a trial has reported to a watch: pairs of a number of samples and the mean over them."""

JUDGED_BY = "optuna_quant:judged_by"
"""The criterion by which the trial was judged, if that is not the study's :data:`CRITERION`."""

CHECKPOINT = "optuna_quant:checkpoint"
"""What is kept of the trial's training while it runs, as :class:`Checkpoint` writes it."""

RESUMED = "optuna_quant:resumed"
"""The number of the failed trial with whose training this one goes on."""

FAILED = "optuna_quant:failed"
"""True if the trial's own evaluation failed; a trial whose worker died does not have it."""

# User attributes of a trial.
FINGERPRINT = "fingerprint"
"""The fingerprint of the model that was built."""
REUSED_FROM = "reused_from"
"""The number of the trial whose result this trial took over, because its model is the same."""
CONTINUES = "continues"
"""The number of the trial whose samples this trial did not evaluate again."""
EVIDENCE = "evidence"
"""What the samples said: a dict, see :class:`~optuna_quant.study.evidence.Evidence`."""
FALLBACK_OPS = "fallback_ops"
"""The number of ops that are not quantized."""
SIMULATED = "simulated"
"""What a simulation gave before the model itself was evaluated: a dict with its ``metric``, and
how much was ``evaluated`` for it, in full-evaluation equivalents; and the ``difference`` of both
models' outputs, see :class:`~optuna_quant.study.simulation.Simulation`."""
MODEL_BYTES = "model_bytes"
"""The size of the model in bytes."""
DEPENDS_ON_BATCH = "depends_on_batch"
"""True if what the model gives for a sample depends on the other samples of the batch."""
MET = "met"
"""Whether the criterion was met."""
LOSS = "loss"
"""The loss against the baseline, as the criterion defines it."""
COSTS = "costs"
"""What the model costs, as far as is known: a dict by measure, see ``optuna_quant.costs``."""

FAILURE = "failure"
"""Why the evaluation failed."""
INTERRUPTED = "interrupted"
"""True if the user interrupted the evaluation."""
IS_PROBE = "probe"
"""True if the trial was asked for to see whether every candidate fails; it is no answer."""
FAILURE_IS_FINAL = "failure_is_final"
"""True if evaluating the configuration again would fail in the same way."""

# Constraints of a trial (feasible if not above zero).
ACCURACY = "accuracy"
"""By how much the metric is worse than the worst that meets the criterion."""
QUANTIZED = "quantized"
"""1 for a model without any quantized op, which is the baseline and no answer."""
UNJUDGED = "unjudged"
"""1 for a trial that ended when there was no baseline to judge it by; nothing reads it but Optuna,
for which a trial without constraints is feasible. It stands in the place of :data:`ACCURACY`."""

# User attributes of a study.
BASELINE = "optuna_quant:baseline"
CRITERION = "optuna_quant:criterion"
"""The criterion that the study was started with."""
STOPPED_BECAUSE = "optuna_quant:stopped_because"
OBJECTIVE = "optuna_quant:objective"
"""The name of what was best among the models that meet the criterion, when it was last asked."""

WARNING = "optuna_quant:warning:"
"""With a hash behind it: something that is suspicious about the data, in words."""
MISSING_RANGE = "optuna_quant:missing_range:"
"""With a hash behind it: an op without a quantization range, why, and the samples at fault."""

# System attributes of a study.
HOLDOUT_SPLIT = "optuna_quant:holdout"
"""Which part of the data the search does not see."""
DYNAMIC_BATCH_SIZE = "optuna_quant:dynamic_batch_size"
"""In batches of how many samples models with dynamic quantization were evaluated."""
FAILURES_FROM = "optuna_quant:failures_from"
"""The number of the first trial whose failure counts: those before it had a cause that may be
mended, since a search has ended because of them and was started again."""

# System attributes of a study.
SECOND_EVALUATION = "second_evaluation"
"""What evaluating an answer a second time has given, one for each answer, see ``blobs``."""
FINALISTS = "finalists"
"""What measuring the finalists beside FP32 has given, by their trials, see ``blobs``."""
FINDINGS = "findings"
"""What the last search has found at its end, and how it was started, see ``blobs``."""
OPTION_SCORES = "option_scores"
"""How sensitive the model is to each op in each option, and what that has cost, see ``blobs``."""
RECIPE_CHOICE = "recipe_choice"
"""The recipes that promise the least error, and what that has cost, in the same way."""
SPACE = "space"
"""The tuning space, by the prefix of its parameters, see ``blobs``."""
OP_TYPES = "op_types"
"""The op type of each op of that space, in the same way."""
BLOCKS = "blocks"
"""The ops of each block that a strategy looks at as a whole, in the same way."""
REPEATED_PARTS = "repeated_parts"
"""The blocks of the model that a model of the loss learns from, in the same way."""
LEFT_OUT = "left_out"
"""The ops that the space leaves out because of what they cost, by its prefix, see ``blobs``."""
COUNTED_COSTS = "counted_costs"
"""The costs of a model that need no measurement, see ``blobs``."""
MEASURED_COSTS = "costs"
"""What the backend has measured, by all that it depends on, see ``blobs``."""
GIVEN_COSTS = "given_costs"
"""The costs that the user has given last, in the same way."""

# Stages that every sampler knows.
BASELINE_STAGE = "baseline"
ENQUEUED_STAGE = "enqueued"
EXHAUSTED_STAGE = "exhausted"
SPARE_STAGE = "spare"


@dataclass(frozen=True)
class Claim:
    """The configuration that a trial of ours evaluates, and its purpose.

    Args:
        number:
            The trial's number. A retried trial inherits the attributes of the trial that it
            repeats; the number tells that its claim is not its own.
        key:
            The key of the configuration.
        stage:
            The name of the stage for which it is evaluated.
        worker:
            The process and thread that run the trial.
        provisional:
            Whether meeting the criterion in that stage does not yet answer the search.
        speculative:
            Whether the configuration was taken before the results of its stage were known.
        fidelity:
            How far to evaluate it.
        broken_promises:
            How many promises of earlier trials were broken, see
            :class:`optuna_quant.sequential.WeightedThresholdTest`.
        positions:
            The position of each parameter's choice, if the sampler of the next trial should know
            it even before this trial has its parameters.
    """

    number: int
    key: str
    stage: str
    worker: str
    provisional: bool = False
    speculative: bool = False
    fidelity: Fidelity = FULL
    broken_promises: int = 0
    positions: Sequence[int] | None = None

    def to_attr(self) -> dict[str, Any]:
        """The value of the trial attribute."""
        return asdict(self) | {"fidelity": self.fidelity.to_attr()}

    @classmethod
    def from_attr(cls, value: Mapping[str, Any]) -> Claim:
        """The claim that :meth:`to_attr` has written.

        Args:
            value:
                The value of the trial attribute.
        """
        fidelity = Fidelity.from_attr(value.get("fidelity", FULL.to_attr()))
        return cls(**{**value, "fidelity": fidelity})


@dataclass(frozen=True)
class Checkpoint:
    """What is kept of a training that has not ended.

    Args:
        training:
            Tells the training apart by all that it depends on except hyperparameters.
        step:
            The step after which the state is.
        artifact:
            The state, in the artifact store.
        hyperparameters:
            The trial's parameters that are not of the tuning space.
    """

    training: str
    step: int
    artifact: str
    hyperparameters: Mapping[str, Any]

    def to_attr(self) -> dict[str, Any]:
        """The value of the trial's attribute."""
        return asdict(self)
