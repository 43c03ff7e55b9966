"""Judge a trial and write the judgement; no other module does.

What is written are constraints, by which Optuna sees what is feasible (``study.best_trial``
is the feasible trial with the best metric), and the user attributes ``loss``, ``met`` and
``evidence``, for people. The answer of a search is worked out from metrics and the baseline
(:mod:`optuna_quant.selection.answer`), so that a judgement decides nothing but what Optuna itself
shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.sequential import Decision
from optuna_quant.study import record


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.study.evidence import Evidence
    from optuna_quant.study.trial_writer import TrialWriter


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The judgement of a trial; what is :obj:`None` is not known, and not written.

    Args:
        violation:
            By how much the metric is worse than the worst that meets the criterion.
        is_quantized:
            Whether the model has a quantized op; otherwise it is no answer.
        is_unjudged:
            Whether the trial has ended without a baseline: then it is not feasible.
        loss:
            The loss against the baseline.
        met:
            Whether the criterion is met.
        evidence:
            What the samples say.
        judged_by:
            The criterion, if it is not the one that the study was started with.
    """

    violation: float | None = None
    is_quantized: bool | None = None
    is_unjudged: bool = False
    loss: float | None = None
    met: bool | None = None
    evidence: Evidence | None = None
    judged_by: AccuracyCriterion | None = None

    @property
    def constraints(self) -> Mapping[str, float]:
        """The constraints of the trial, feasible if not above 0, by name."""
        found = {}
        if self.violation is not None:
            found[record.ACCURACY] = self.violation
        elif self.is_unjudged:
            found[record.UNJUDGED] = 1.0
        if self.is_quantized is not None:
            found[record.QUANTIZED] = 0.0 if self.is_quantized else 1.0
        return found

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """The user attributes of the trial, by name."""
        evidence = None if self.evidence is None else self.evidence.to_attr()
        found = {record.EVIDENCE: evidence, record.LOSS: self.loss, record.MET: self.met}
        return {name: value for name, value in found.items() if value is not None}


def judge(
    metric: float,
    baseline: float,
    criterion: AccuracyCriterion,
    *,
    is_quantized: bool,
    judged_by: AccuracyCriterion | None = None,
) -> Judgement:
    """Compare the metric over all samples with the baseline.

    Args:
        metric:
            The metric.
        baseline:
            That of the FP32 model.
        criterion:
            When a metric is good enough.
        is_quantized:
            Whether the model has a quantized op.
        judged_by:
            The criterion, if it is not the one that the study was started with.
    """
    violation = criterion.violation(metric, baseline)
    return Judgement(
        violation=violation,
        is_quantized=is_quantized,
        loss=criterion.loss(metric, baseline),
        met=violation <= 0 if is_quantized else None,
        judged_by=judged_by,
    )


def judge_by_samples(evidence: Evidence) -> Judgement:
    """What is known of a candidate by its samples alone: at most that it misses the criterion.

    Args:
        evidence:
            What they say.
    """
    return Judgement(evidence=evidence, met=False if evidence.decision == Decision.FAILS else None)


def write_judgement(
    judgement: Judgement, writer: TrialWriter, *, constrain: bool = True, explain: bool = True
) -> None:
    """Write a judgement to its trial.

    Args:
        judgement:
            The judgement.
        writer:
            Writes to the trial.
        constrain:
            Whether to write its constraints.
        explain:
            Whether to write its user attributes, and by whom it was judged.
    """
    if constrain:
        for name, value in judgement.constraints.items():
            writer.constraint(name, value)
    if not explain:
        return
    for name, value in judgement.user_attrs.items():
        writer.user_attr(name, value)
    if judgement.judged_by is not None:
        writer.system_attr(record.JUDGED_BY, asdict(judgement.judged_by))
