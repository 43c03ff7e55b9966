"""Check that an existing study was started with the same things, before it is continued."""

from __future__ import annotations

from functools import cached_property
from functools import partial
import threading
from typing import TYPE_CHECKING

from optuna_quant.criteria import check_one_criterion
from optuna_quant.evaluation.same_evaluation import check_evaluation
from optuna_quant.evaluation.same_evaluation import find_difference
from optuna_quant.evaluation.same_evaluation import keep_evaluation
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers._engine.contract import criterion_of
from optuna_quant.study.compatibility import check_continued
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.study.record_check import check_fallback_ops
from optuna_quant.study.record_check import check_record
from optuna_quant.study.space_signature import first_difference


if TYPE_CHECKING:
    import optuna

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.guarded import GuardedEvaluation
    from optuna_quant.evaluation.setup import ObjectiveSetup
    from optuna_quant.evaluation.study_samples import StudySamples
    from optuna_quant.space.space import TuningSpace


class ContinuedStudies:
    """Checks each study once before it is continued.

    Args:
        setup:
            What studies are gone on with.
        samples:
            The samples of the studies.
        guarded:
            Runs evaluations.
        wait_timeout:
            For how many seconds to wait for a baseline that another process is measuring with
            what may be another function.
    """

    def __init__(
        self,
        setup: ObjectiveSetup,
        samples: StudySamples,
        guarded: GuardedEvaluation,
        *,
        wait_timeout: float,
    ) -> None:
        self._setup = setup
        self._samples = samples
        self._guarded = guarded
        self._wait_timeout = wait_timeout
        self._fitting: set[str] = set()  # Started with the same things.
        self._comparable: set[str] = set()  # Their metrics are those of this evaluation.
        self._judged_again: set[str] = set()  # By another criterion than they were started with.
        self._lock = threading.RLock()

    def check(self, study: optuna.Study) -> None:
        """Refuse a study that was started with something else, or whose record is damaged."""
        criterion, name = self._setup.criterion, study.study_name
        check_one_criterion(
            objective=criterion,
            sampler=criterion_of(study.sampler),
            pruner=criterion_of(study.pruner),
        )
        if name in self._fitting:
            return
        with self._lock:
            if name in self._fitting:
                return
            _check_sampler(study, self._setup.space)
            check_record(study)
            check_continued(study, self._setup.backend, self._setup.space, criterion)
            check_fallback_ops(study, self._setup.space)
            self.check_evaluation(study)
            if recorded_criterion(study) != criterion:
                self._judged_again.add(name)
            self._fitting.add(name)

    def check_evaluation(self, study: optuna.Study) -> None:
        """Make sure that the metrics of a study are those of this evaluation."""
        if study.study_name in self._comparable:
            return
        with self._lock:
            if study.study_name in self._comparable:
                return
            self._samples.check(study)
            differs = partial(self._difference, study)
            if check_evaluation(study, self._signature, differs, timeout=self._wait_timeout):
                self._comparable.add(study.study_name)

    def begin(self, study: optuna.Study) -> None:
        """Keep with what the baseline of a study is measured, before it is there."""
        keep_evaluation(study, self._signature)

    def started(self, study: optuna.Study) -> None:
        """The baseline of a study is that of this process: its metrics are ours."""
        self._comparable.add(study.study_name)

    def judged_by(self, study: optuna.Study) -> AccuracyCriterion | None:
        """The criterion, if a study was started with another one."""
        return self._setup.criterion if study.study_name in self._judged_again else None

    def forget(self, study: optuna.Study) -> None:
        """Forget what is known of a study, because another one has taken its name."""
        for names in (self._fitting, self._comparable, self._judged_again):
            names.discard(study.study_name)

    @cached_property
    def _signature(self) -> dict[str, str]:
        return signature_of(self._setup.evaluate)

    def _difference(self, study: optuna.Study) -> str | None:
        """What is different if the models are measured again."""
        setup, samples = self._setup, self._samples.of(study)
        return find_difference(
            study,
            backend=setup.backend,
            space=setup.space,
            criterion=setup.criterion,
            evaluate=setup.evaluate_in_full,
            samples=None if samples is None else samples.evaluation,
            calibrate=lambda config: share_calibration(
                study, setup.backend, config=config, artifact_store=setup.artifact_store
            ),
            limited=partial(self._guarded.run_outside, study, what="Evaluating a model once more"),
        )


def _check_sampler(study: optuna.Study, space: TuningSpace) -> None:
    """Refuse a sampler of ours that searches another space than the objective evaluates."""
    sampler = study.sampler
    if not isinstance(sampler, QuantSampler):
        return
    found = first_difference(sampler.space, space)
    if found is not None:
        raise ValueError(
            f"The sampler has another tuning space than the objective: {found}. Make one space, "
            "space = backend.tuning_space(...), and give it to both."
        )
