"""The prior that a study takes from an earlier one and keeps in its record."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import json
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.others import has_results


if TYPE_CHECKING:
    import optuna

    from optuna_quant.space.space import TuningSpace


_NAME = "prior"
_VERSION = 1


@dataclass(frozen=True)
class EarlierLoss:
    """The loss of a configuration in an earlier study.

    Args:
        options:
            The labels of the options of the ops, by the op's name; those that are missing were in
            FP32.
        loss:
            By how much the metric was worse than the baseline, in its units.
        error:
            The standard error of the loss, where only some of the samples were seen.
        spread:
            The standard error of the loss as one that all possible samples have.
        failed:
            Whether it certainly failed the criterion of that study.
    """

    options: Mapping[str, str]
    loss: float
    error: float = 0.0
    spread: float = 0.0
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class StudyPrior:
    """What was learned in an earlier study: the prior of a search in another one.

    :func:`study_prior` reads it from a study. It names ops and options, and knows no tuning space,
    so that it can be held against that of another model.

    Args:
        study:
            The name of the earlier study.
        trials:
            How many finished trials it had.
        op_types:
            Its ops, with their op types; empty strings where the study does not say.
        options:
            The labels of the options of each of them.
        same_model:
            Whether a configuration builds the same model in both studies.
        same_evaluation:
            Whether equal models have the same metric in both.
        same_metric:
            Whether losses of the two can be compared, as those of the same metric on other
            samples.
        criterion:
            The criterion of the earlier study, by its fields; empty if it is not known.
        objective:
            The name of what was to be small there.
        baseline:
            The metric of its FP32 model; :obj:`None` if it was not measured.
        losses:
            The losses of its configurations, and of those of the study that it was started from.
        answer:
            The best configuration that met the criterion, as JSON; :obj:`None` if there was none.
        answer_cost:
            What that cost by the objective; :obj:`None` if it is not known.
        is_concluded:
            Whether this search would have tried nothing else there.
        fruitless:
            How many models were tried after the answer that were no improvement.
        scores:
            The sensitivity of each op in each option; empty if there are none.
        of_weights:
            What part of the sensitivity of ops comes from their weights; what is not known is
            missing.
        factors:
            What the trials have taught: the logarithm of the factor by which each op in each
            option adds more to the error than its sensitivity says.
        scale:
            The logarithm of the loss at the reference error, and the exponent, see
            :class:`~optuna_quant.samplers._models.loss_model.LossModel`; :obj:`None` if no trial
            has taught it.
    """

    study: str
    trials: int
    op_types: Mapping[str, str]
    options: Mapping[str, Sequence[str]]
    same_model: bool = False
    same_evaluation: bool = False
    same_metric: bool = False
    criterion: Mapping[str, Any] = field(default_factory=dict)
    objective: str = ""
    baseline: float | None = None
    losses: Sequence[EarlierLoss] = ()
    answer: str | None = None
    answer_cost: float | None = None
    is_concluded: bool = False
    fruitless: int = 0
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    of_weights: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scale: tuple[float, float] | None = None

    def in_common(self, space: TuningSpace) -> list[str]:
        """The ops of a tuning space that the earlier study had, with an option in common."""
        return [
            op
            for tunable in space.tunables
            for op in tunable.ops
            if {option.label for option in tunable.quantized} & set(self.options.get(op, ()))
        ]

    def check(self, space: TuningSpace) -> None:
        """Check that a search in a tuning space can start from it.

        Raises:
            ValueError:
                If an op of the same name has another type, or no op is in common.
        """
        for tunable in space.tunables:
            for op in tunable.ops:
                there = self.op_types.get(op, "")
                # The type of a group of ops is that of all of them.
                if there and "+" not in there + tunable.op_type and there != tunable.op_type:
                    raise ValueError(
                        f"The study {self.study!r} is of another model: the op {op!r} is a "
                        f"{there} there and a {tunable.op_type} here. Start from a study of the "
                        "same model or of one with the same op names, or without an earlier "
                        "study."
                    )
        if not self.in_common(space):
            names = [op for tunable in space.tunables for op in tunable.ops]
            shared = [op for op in names if op in self.options]
            why = (
                f"its ops have no option in common with this one (of {shared[0]!r} it has "
                f"{', '.join(self.options[shared[0]])})"
                if shared
                else f"no op is in common (it has {_some(list(self.options))}; here there are "
                f"{_some(names)})"
            )
            raise ValueError(
                f"The study {self.study!r} says nothing about this model: {why}. Start from a "
                "study of the same model or of one with the same op names, or without an "
                "earlier study."
            )

    def shown(self, space: TuningSpace) -> str:
        """What was taken over, in a line."""
        total = sum(len(tunable.ops) for tunable in space.tunables)
        trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        return (
            f"started from study {self.study!r}: {len(self.in_common(space))} of {total} "
            f"op{'' if total == 1 else 's'} in common, {trials}"
        )

    def dumps(self) -> str:
        """The prior as JSON, equal for equal priors."""
        labels = sorted({label for each in self.losses for label in each.options.values()})
        ops = list(self.options)
        numbers = {label: i for i, label in enumerate(labels)}
        stored = {name: value for name, value in vars(self).items() if name != "losses"}
        stored |= {
            "version": _VERSION,
            "ops": ops,
            "labels": labels,
            "losses": [
                [
                    [numbers[each.options[op]] if op in each.options else -1 for op in ops],
                    each.loss,
                    each.error,
                    each.spread,
                    each.failed,
                ]
                for each in self.losses
            ],
        }
        return json.dumps(stored, default=dict)

    @classmethod
    def loads(cls, text: str) -> StudyPrior:
        """Read what :meth:`dumps` has written.

        Raises:
            ValueError:
                If another version of this package has written it.
        """
        stored = json.loads(text)
        if stored.pop("version") != _VERSION:
            raise ValueError(
                f"What was taken from the study {stored.get('study')!r} was written by another "
                "version of optuna_quant. Use that version, or start a new study."
            )
        ops, labels = stored.pop("ops"), stored.pop("labels")
        losses = tuple(
            EarlierLoss(
                {op: labels[i] for op, i in zip(ops, numbers, strict=True) if i >= 0}, *rest
            )
            for numbers, *rest in stored.pop("losses")
        )
        scale = stored.pop("scale")
        return cls(**stored, losses=losses, scale=None if scale is None else tuple(scale))


def kept_prior(study: optuna.Study) -> StudyPrior | None:
    """What a study was started from; :obj:`None` if it was started from nothing."""
    data = read_bytes(study, _NAME)
    return None if data is None else StudyPrior.loads(data.decode())


def keep_prior(study: optuna.Study, prior: StudyPrior | None) -> StudyPrior | None:
    """Write into a study what it starts from; an existing entry stays.

    Args:
        study:
            The study.
        prior:
            What it is to begin from; :obj:`None` for what it keeps, if anything.

    Returns:
        What the study keeps, the same for all its workers.

    Raises:
        ValueError:
            If it was started from another study, or from none and has results.
    """
    kept = kept_prior(study)
    if prior is None:
        return kept
    if kept is None:
        check_not_started(study, prior.study)
        data = ComputeOnce(study, _NAME).get(lambda: prior.dumps().encode())
        kept = StudyPrior.loads(data.decode())
    check_started_from(study, kept, prior.study)
    return kept


def check_not_started(study: optuna.Study, earlier: str) -> None:
    """Refuse to start a study from another one if it has its own results.

    Raises:
        ValueError:
            If it has.
    """
    if has_results(study):
        raise ValueError(
            f"The study {study.study_name!r} has trials already and was not started from the "
            f"study {earlier!r}: a search cannot change what it starts from. Continue without "
            "an earlier study, or use another study name."
        )


def check_started_from(study: optuna.Study, kept: StudyPrior, earlier: str) -> None:
    """Refuse to continue a study that was started from another one than is given now.

    Raises:
        ValueError:
            If it was.
    """
    if kept.study != earlier:
        raise ValueError(
            f"The study {study.study_name!r} was started from the study {kept.study!r}, not "
            f"from {earlier!r}. Continue with the same one, or use another study name."
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
