"""Keep a part of the evaluation data aside that the search does not see."""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import hashlib
from numbers import Real
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._optuna import set_study_system_attr
from optuna_quant._optuna import study_system_attrs
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.errors import ChangedEvaluationError


if TYPE_CHECKING:
    import optuna


# So that the split is not the start of another sequence of numbers from the same seed.
_PURPOSE = 0x686F6C64


@dataclass(frozen=True)
class HoldoutSplit:
    """The samples that are kept aside.

    Args:
        fraction:
            The part of the samples that is.
        seed:
            The seed with which they were drawn.
        samples:
            Of how many.
        digest:
            Tells these samples from others.
    """

    fraction: float
    seed: int
    samples: int
    digest: str

    def __str__(self) -> str:
        return (
            f"holdout={self.fraction:g} with the seed {self.seed}, drawn from {self.samples} "
            "samples"
        )


def as_fraction(holdout: object) -> float | None:
    """The part of the data that is to be kept aside; :obj:`None` if samples are given instead.

    Raises:
        ValueError:
            If it is a number, but no fraction.
    """
    if isinstance(holdout, bool) or not isinstance(holdout, Real):
        return None
    fraction = float(holdout)
    if not 0 < fraction < 1:
        raise ValueError(
            f"holdout={holdout!r}: as a number it is the part of the data that is kept aside, "
            "above 0 and below 1, such as 0.3 for 30%."
        )
    return fraction


def split_holdout(
    evaluation: object, fraction: float, *, seed: int
) -> tuple[DataEvaluation, DataEvaluation, HoldoutSplit]:
    """Divide labelled data at random.

    Every sample is as likely as any other to be kept aside, whatever its label: the interval of a
    loss supposes that samples are drawn so.

    Args:
        evaluation:
            The evaluation on all data.
        fraction:
            The part that is kept aside.
        seed:
            The same seed keeps the same samples aside.

    Returns:
        What the search evaluates, what is kept aside, and which samples these are.

    Raises:
        ValueError:
            If there are no labelled data to divide, or too few.
    """
    if not isinstance(evaluation, DataEvaluation):
        raise ValueError(
            f"holdout={fraction:g} keeps a part of data aside, but with evaluate there are no "
            "data to divide: give a second function that gives the metric of a model on other "
            "samples."
        )
    samples = evaluation.samples
    count = round(fraction * samples)
    if not 0 < count < samples:
        raise ValueError(
            f"holdout={fraction:g} of {samples} samples keeps {count} aside and leaves "
            f"{samples - count}; there must be at least one of each."
        )
    order = np.random.default_rng([_PURPOSE, seed]).permutation(samples)
    aside, searched = np.sort(order[:count]), np.sort(order[count:])
    digest = hashlib.sha256(aside.astype("<i8").tobytes()).hexdigest()[:16]
    split = HoldoutSplit(fraction, int(seed), samples, digest)
    return evaluation.subset(searched), evaluation.subset(aside), split


def check_split(study: optuna.Study, split: HoldoutSplit | None) -> None:
    """Refuse a study whose search saw other samples; write down what a new one keeps aside.

    Args:
        study:
            The study.
        split:
            What is kept aside here.

    Raises:
        ChangedEvaluationError:
            If the study was started with another part aside, or with none.
    """
    known: dict[str, Any] | None = study_system_attrs(study).get(record.HOLDOUT_SPLIT)
    here = None if split is None else asdict(split)
    if known == here:
        return
    if known is None and get_baseline(study) is None:
        set_study_system_attr(study, record.HOLDOUT_SPLIT, here)
        return
    began = "without a hold-out part" if known is None else f"with {HoldoutSplit(**known)}"
    now = "none is kept aside" if split is None else f"it is {split}"
    raise ChangedEvaluationError(
        f"The study {study.study_name!r} was started {began}, but here {now}: its models were "
        "compared on other samples. Use the same data, holdout and seed, or another study name "
        "or storage."
    )
