"""The only reader of a trial's attributes.

Samplers, callbacks, the selection of the answer, results and whatever shows a study read a trial
through its :class:`TrialView`, and where it has only started, through the
:class:`~optuna_quant.study.started_trial.StartedTrial` that this is made of. Attributes are read
by their names only in these two, where they are written, and in
:mod:`optuna_quant.study.record_check`, which makes sure that they are of the kinds that the two
take for granted.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant import _optuna
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.sequential import Decision
from optuna_quant.space.config import FLOAT_MODES
from optuna_quant.study import record
from optuna_quant.study.evidence import Evidence
from optuna_quant.study.sample_record import copy_scores
from optuna_quant.study.sample_record import decision_of
from optuna_quant.study.sample_record import population_of
from optuna_quant.study.sample_record import read_scores
from optuna_quant.study.sample_record import samples_of
from optuna_quant.study.simulation import Simulation
from optuna_quant.study.started_trial import StartedTrial


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    import optuna


@dataclass(frozen=True)
class TrialView(StartedTrial):
    """A trial's attributes, by name and with types; parsed when they are read.

    To what is known of any trial that has started, it adds its model and what was found of it.

    Args:
        trial:
            The trial. It is not copied, and must not be changed.
    """

    # Its model.

    @property
    def fallback_ops(self) -> int:
        """The number of ops that are not quantized, as recorded, or else by its parameters."""
        recorded = self.trial.user_attrs.get(record.FALLBACK_OPS)
        if recorded is not None:
            return int(recorded)
        return sum(
            value in FLOAT_MODES
            for name, value in self.trial.params.items()
            if ".op:" in name and isinstance(value, str)
        )

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of its model; :obj:`None` if none was built, or by other objectives."""
        return self.trial.user_attrs.get(record.FINGERPRINT)

    @property
    def model(self) -> object:
        """What equal models have in common: the fingerprint, or else the trial's number."""
        return self.trial.user_attrs.get(record.FINGERPRINT, self.trial.number)

    @property
    def model_bytes(self) -> int | None:
        """The size of its model in bytes, if that is known."""
        return self.trial.user_attrs.get(record.MODEL_BYTES)

    @property
    def depends_on_batch(self) -> bool:
        """Whether what its model gives for a sample depends on the others of the batch."""
        return record.DEPENDS_ON_BATCH in self.trial.user_attrs

    @property
    def simulation(self) -> Simulation | None:
        """What the model's simulation gave, where the model itself was evaluated as well."""
        found = self.trial.user_attrs.get(record.SIMULATED)
        return None if found is None else Simulation.from_attr(found)

    @property
    def simulated_evaluations(self) -> float:
        """How much was evaluated of the simulation of such a model."""
        found = self.simulation
        return 0.0 if found is None else found.evaluated

    @property
    def costs(self) -> Mapping[str, float]:
        """What its model costs by measure, as far as that was recorded."""
        found: Mapping[str, float] = self.trial.user_attrs.get(record.COSTS, {})
        return found

    @property
    def reused_from(self) -> int | None:
        """The trial whose result it took over, because its model is the same."""
        return self.trial.user_attrs.get(record.REUSED_FROM)

    @property
    def continues(self) -> int | None:
        """The trial whose samples it did not evaluate again."""
        return self.trial.user_attrs.get(record.CONTINUES)

    @property
    def source(self) -> int:
        """The trial that has evaluated its model."""
        return self.trial.number if self.reused_from is None else self.reused_from

    # What was found.

    @property
    def metric(self) -> float | None:
        """Its first objective, which is the metric; :obj:`None` if it has none."""
        return self.trial.values[0] if self.trial.values else None

    @property
    def loss(self) -> float | None:
        """The loss against the baseline, as it was judged when it ended."""
        return self.trial.user_attrs.get(record.LOSS)

    @property
    def met(self) -> bool | None:
        """Whether it met the criterion then; :obj:`None` if it was not judged, or is no answer."""
        return self.trial.user_attrs.get(record.MET)

    @property
    def violation(self) -> float | None:
        """By how much its metric missed the criterion then: the constraint ``accuracy``."""
        return self.trial.constraints.get(record.ACCURACY)

    @property
    def is_judged(self) -> bool:
        """Whether our objective has held its metric against the baseline."""
        return record.LOSS in self.trial.user_attrs

    @property
    def judged_by(self) -> AccuracyCriterion | None:
        """The criterion that it was judged by, if that is not the study's."""
        stored = self.trial.system_attrs.get(record.JUDGED_BY)
        return None if stored is None else AccuracyCriterion(**stored)

    @property
    def is_constrained_as_fp32(self) -> bool:
        """Whether its constraint says that nothing in its model is quantized."""
        return self.trial.constraints.get(record.QUANTIZED, 0.0) > 0

    @property
    def is_quantized(self) -> bool:
        """Whether its model has a quantized op, so that it may be an answer."""
        if self.is_judged and self.met is None:
            return False  # It is no answer; that is all where nothing is constrained.
        is_fp32 = self.is_baseline or self.is_constrained_as_fp32
        return not is_fp32 and not self.is_foreign

    @property
    def evidence(self) -> Evidence | None:
        """On what part of the samples it was evaluated, and what they say."""
        stored = self.trial.user_attrs.get(record.EVIDENCE)
        return None if stored is None else Evidence.from_attr(stored)

    @property
    def samples(self) -> int | None:
        """How many samples it has seen; :obj:`None` if single samples are not known."""
        return samples_of(self.trial.system_attrs)

    @property
    def population(self) -> str:
        """The key of the population whose samples it has seen."""
        return population_of(self.trial.system_attrs)

    @property
    def decision(self) -> Decision:
        """What it has itself concluded from its samples."""
        return decision_of(self.trial.system_attrs)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The scores of the samples that it has seen, in the order of evaluation.

        Raises:
            ValueError:
                If they are not what was written.
        """
        return read_scores(self.trial.system_attrs)

    def copy_scores(self, write: Callable[[str, Any], None]) -> None:
        """Keep its scores in another trial as well, if it has any.

        Args:
            write:
                Writes a system attribute of the other trial.
        """
        copy_scores(write, self.trial.system_attrs)

    @property
    def reports(self) -> Mapping[int, float]:
        """The mean after each number of samples that it has reported."""
        if self.trial.intermediate_values:
            return self.trial.intermediate_values
        pairs = self.trial.system_attrs.get(record.REPORTS) or ()
        return {int(step): float(value) for step, value in pairs}

    # Its training.

    @property
    def checkpoint(self) -> record.Checkpoint | None:
        """What is kept of its training, if that was interrupted."""
        found = self.trial.system_attrs.get(record.CHECKPOINT)
        return None if found is None else record.Checkpoint(**found)

    @property
    def resumed(self) -> int | None:
        """The failed trial with whose training it goes on."""
        found: int | None = self.trial.system_attrs.get(record.RESUMED)
        return found

    # Why there is nothing.

    @property
    def failure(self) -> str | None:
        """Why its evaluation failed, if our objective says so."""
        return self.trial.user_attrs.get(record.FAILURE)

    @property
    def failure_is_final(self) -> bool:
        """Whether evaluating its configuration again would fail in the same way."""
        return bool(self.trial.user_attrs.get(record.FAILURE_IS_FINAL, False))

    @property
    def has_failed_itself(self) -> bool:
        """Whether, of a failed trial, the evaluation failed; otherwise its worker died."""
        has_said_so = bool(self.trial.system_attrs.get(record.FAILED))
        return has_said_so or record.FAILURE in self.trial.user_attrs

    @property
    def is_interrupted(self) -> bool:
        """Whether the user interrupted its evaluation."""
        return bool(self.trial.user_attrs.get(record.INTERRUPTED))

    @property
    def is_probe(self) -> bool:
        """Whether it was asked for to see whether every candidate fails; it is no answer."""
        return record.IS_PROBE in self.trial.user_attrs


def views(study: optuna.Study) -> list[TrialView]:
    """The views of all trials of a study, in their order."""
    return [TrialView(trial) for trial in _optuna.all_trials(study)]


def full_scores(study: optuna.Study, view: TrialView, samples: int) -> NDArray[np.float64] | None:
    """The scores that a trial, or the one whose result it took over, has on all samples.

    Args:
        study:
            The study.
        view:
            The trial.
        samples:
            How many samples there are.

    Returns:
        The scores in the order of evaluation; :obj:`None` if the record does not have them all.
    """
    scores = view.scores
    if len(scores) < samples and view.reused_from is not None:
        scores = TrialView(_optuna.all_trials(study)[view.reused_from]).scores
    return scores if len(scores) >= samples else None
