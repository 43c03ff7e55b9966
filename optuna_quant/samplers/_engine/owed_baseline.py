"""Whether a sampler still has to measure the baseline, and why a study has none for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState


if TYPE_CHECKING:
    import optuna

    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


_SET = "set_baseline(study, Baseline(value)) of optuna_quant.study.baseline"
_AGAIN = "study.enqueue_trial(space.params_of(space.fp32()))"


class OwedBaseline:
    """The trial of the FP32 model that a sampler owes its study.

    One that is pruned has measured nothing, and is repeated as often as one that fails.

    Args:
        space:
            The tuning space.
        measures:
            Whether the sampler evaluates the FP32 model at all.
        max_attempts:
            After how many trials of it that were pruned or failed it is given up.
    """

    def __init__(self, space: TuningSpace, *, measures: bool, max_attempts: int) -> None:
        self._space = space
        self._key = space.fp32().key
        self._measures = measures
        self._most = max_attempts

    def is_open(self, history: TrialHistory) -> bool:
        """Whether the next trial is to evaluate the FP32 model, unless one that runs does."""
        if not self._measures:
            return False
        outcome = history.outcomes.get(self._key)
        if outcome is None:
            return True
        if outcome.state != TrialState.PRUNED or outcome.is_substitute:
            return False
        return history.baseline is None and history.baseline_attempts < self._most

    def why_missing(self, study: optuna.Study, history: TrialHistory) -> str:
        """Why no trial measures the baseline of a study that has none, and what to do.

        Args:
            study:
                The study.
            history:
                Its trials.
        """
        outcome = history.outcomes.get(self._key)
        if not self._space.has_fp32:
            return f"the tuning space has no FP32 model. Measure it elsewhere and keep it: {_SET}."
        if not self._measures:
            return f"the sampler has baseline=False. Keep what was measured elsewhere: {_SET}."
        if outcome is None or outcome.is_substitute:
            return (
                "what was to evaluate the FP32 model has had other parameters. Measure it "
                f"elsewhere and keep it: {_SET}."
            )
        if outcome.state == TrialState.PRUNED:
            pruner = type(study.pruner).__name__
            return (
                f"the FP32 model was pruned in {history.baseline_attempts} trials (the study has "
                f"the pruner {pruner}). Do not report in the trial of FP32, or take a pruner that "
                "leaves it alone, as optuna_quant.pruners.AccuracyPruner does, and have it "
                f"evaluated once more: {_AGAIN}. Or measure it elsewhere and keep it: {_SET}."
            )
        reasons = [found.reason for found in history.abandoned() if found.key == self._key]
        return (
            f"the FP32 model could not be evaluated: {'; '.join(reasons)}. Mend that "
            f"and have it evaluated once more: {_AGAIN}. Or measure it elsewhere and keep it: "
            f"{_SET}."
        )
