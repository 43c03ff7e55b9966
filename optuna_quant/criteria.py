"""When a quantized model is good enough."""

from __future__ import annotations

from dataclasses import dataclass
import math
from numbers import Real
import re
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

from optuna_quant._common.option import Flag
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import NUMBER
from optuna_quant._common.option_kinds import SWITCH
from optuna_quant._common.option_kinds import TEXT
from optuna_quant._common.printable import percent


if TYPE_CHECKING:
    import optuna


CRITERIA = ("relative", "absolute")

ROUNDING = 1e-9
"""A shortfall of at most this part of the metric or the baseline, whichever is larger, is taken
for a rounding error: 0.99 - 0.98 is more than 0.01 in floating point."""


@dataclass(frozen=True, kw_only=True)
class AccuracyCriterion:
    """When a metric is good enough, given the FP32 model's.

    The loss is the amount by which the metric is worse than the baseline: ``baseline - metric``,
    or ``metric - baseline`` if lower is better. A relative loss is this divided by
    ``abs(baseline)``, so 0.01 is one percent of the baseline's magnitude, in the worse direction,
    also if the baseline is negative: from -50 to -50.5 if higher is better. A loss equal to
    ``tolerable_loss`` meets the criterion. A relative loss against a baseline of zero is
    undefined; it is an error.

    Example:
        >>> criterion = AccuracyCriterion(criterion="relative", tolerable_loss=0.01)
        >>> criterion.meets(0.891, baseline=0.9)
        True
        >>> criterion.threshold(baseline=0.9)
        0.891

    Args:
        higher_is_better:
            Whether a higher metric is better. Default: the direction of the metric that
            :func:`~optuna_quant.tune` is given; :obj:`True` if it has none, as for a function.
        criterion:
            ``"relative"`` or ``"absolute"``. Default: relative, but absolute if the metric of the
            FP32 model is zero by definition (``"relative_error"``).
        tolerable_loss:
            The largest loss that is good enough: at least 0 and, if relative, below 1 (at
            most 1 if lower is better).

    Raises:
        TypeError:
            If an argument has another type.
        ValueError:
            If an argument is out of its range.
    """

    # None stands for what is not given; the attributes are always a bool and a string.
    higher_is_better: bool = option(  # type: ignore[assignment]
        None,
        Flag(
            help="the metric is an error or a loss",
            kind=SWITCH,
            names=("--lower-is-better",),
            value=False,
            opposite="--higher-is-better",
            heading="criterion",
        ),
    )
    criterion: str = option(  # type: ignore[assignment]
        None,
        Flag(
            help="whether the loss is a fraction of the FP32 model's metric (0.01: one "
            "percent) or in units of the metric (default: relative; absolute for "
            "relative_error, which is 0 for FP32)",
            kind=TEXT,
            choices=CRITERIA,
            heading="criterion",
        ),
    )
    tolerable_loss: float = option(
        0.01,
        Flag(
            help="the largest loss that is good enough (default: 0.01)",
            kind=NUMBER,
            metavar="LOSS",
            heading="criterion",
            common=True,
        ),
    )

    def __post_init__(self) -> None:
        # No fields: criteria are equal, and kept in studies, by what they say.
        object.__setattr__(self, "_says_direction", self.higher_is_better is not None)
        object.__setattr__(self, "_says_kind", self.criterion is not None)
        if self.higher_is_better is None:
            object.__setattr__(self, "higher_is_better", True)
        if self.criterion is None:
            object.__setattr__(self, "criterion", "relative")
        if not isinstance(self.higher_is_better, bool):
            raise TypeError(
                f"higher_is_better must be True or False, but got {self.higher_is_better!r}."
            )
        if self.criterion not in CRITERIA:
            raise ValueError(
                f"criterion must be one of {', '.join(CRITERIA)}, but got {self.criterion!r}."
            )
        loss = _number("tolerable_loss", self.tolerable_loss, is_part=self.criterion == "relative")
        if math.isnan(loss) or math.isinf(loss) or loss < 0:
            more = ""
            if -math.inf < loss < 0:
                more = (
                    " A gain over the FP32 model cannot be demanded: a model that is better than "
                    "it meets any criterion."
                )
            raise ValueError(
                f"tolerable_loss must be a number of at least 0, but got {loss}.{more}"
            )
        if self.criterion == "relative" and loss > 1:
            raise ValueError(
                "A relative tolerable_loss is a fraction of the baseline, "
                f"{'below' if self.higher_is_better else 'at most'} 1 (0.01 is one percent), but "
                f"got {loss:g}. For a loss in units of the metric use "
                "criterion='absolute'."
            )
        object.__setattr__(self, "tolerable_loss", loss)

    @property
    def says_direction(self) -> bool:
        """Whether ``higher_is_better`` was given."""
        return bool(getattr(self, "_says_direction", True))

    @property
    def says_kind(self) -> bool:
        """Whether ``criterion`` was given."""
        return bool(getattr(self, "_says_kind", True))

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The direction of the study: ``"maximize"`` or ``"minimize"``."""
        return "maximize" if self.higher_is_better else "minimize"

    def check_baseline(self, baseline: float) -> None:
        """Refuse a baseline against which no loss can be computed.

        Raises:
            ValueError:
                If it is not finite, or zero and the criterion is relative.
        """
        if not math.isfinite(baseline):
            raise ValueError(f"The metric of the FP32 model must be finite, but it is {baseline}.")
        if self.criterion == "relative" and baseline == 0:
            raise ValueError(
                "The metric of the FP32 model is 0, and a loss relative to 0 is not defined: "
                "use criterion='absolute', with tolerable_loss in units of the metric."
            )

    def loss(self, metric: float, baseline: float) -> float:
        """By how much the metric is worse than the baseline; negative if it is better.

        Args:
            metric:
                The metric of the quantized model.
            baseline:
                The metric of the FP32 model.

        Raises:
            ValueError:
                If the baseline is not finite, or zero and the criterion is relative.
        """
        self.check_baseline(baseline)
        worse = baseline - metric if self.higher_is_better else metric - baseline
        return worse / abs(baseline) if self.criterion == "relative" else worse

    def threshold(self, baseline: float) -> float:
        """The worst metric that meets the criterion.

        Args:
            baseline:
                The metric of the FP32 model.

        Raises:
            ValueError:
                If the baseline is not finite, or zero and the criterion is relative.
        """
        self.check_baseline(baseline)
        step = self.tolerable_loss
        if self.criterion == "relative":
            step *= abs(baseline)
        return baseline - step if self.higher_is_better else baseline + step

    def violation(self, metric: float, baseline: float) -> float:
        """By how much the metric is worse than :meth:`threshold`, in units of the metric.

        At most 0 exactly if the criterion is met; this is the one comparison that everything
        else rests on, and the value of the study's constraint. A positive difference within
        :data:`ROUNDING` is 0. A NaN is infinitely bad.

        Args:
            metric:
                The metric of the quantized model.
            baseline:
                The metric of the FP32 model.

        Raises:
            ValueError:
                If the baseline is not finite, or zero and the criterion is relative.
        """
        threshold = self.threshold(baseline)
        if math.isnan(metric):
            return math.inf
        excess = threshold - metric if self.higher_is_better else metric - threshold
        if 0 < excess <= ROUNDING * max(abs(metric), abs(baseline)) < math.inf:
            return 0.0
        return excess

    def meets(self, metric: float, baseline: float) -> bool:
        """Whether the metric is good enough.

        Args:
            metric:
                The metric of the quantized model. A NaN never is.
            baseline:
                The metric of the FP32 model.

        Raises:
            ValueError:
                If the baseline is not finite, or zero and the criterion is relative.
        """
        return self.violation(metric, baseline) <= 0

    def check_direction(self, study: optuna.Study) -> None:
        """Refuse a study whose first objective has the other direction.

        Raises:
            ValueError:
                If it minimizes a metric that is better when higher, or the reverse.
        """
        found = study.directions[0].name.lower()
        if found != self.direction:
            several = len(study.directions) > 1
            has = "has the direction" if not several else "has as its first direction"
            given = f"direction={self.direction!r}"
            if several:  # The first objective is the metric.
                others = [direction.name.lower() for direction in study.directions[1:]]
                given = f"directions={[self.direction, *others]}, the metric first"
            raise ValueError(
                f"The study {study.study_name!r} {has} {found!r}, but with "
                f"higher_is_better={self.higher_is_better} it must be {self.direction!r}. Create "
                f"the study with {given}, or change higher_is_better."
            )

    def show(self, loss: float) -> str:
        """Format a loss: in percent if relative."""
        return f"{percent(loss)}%" if self.criterion == "relative" else f"{loss:.4g}"

    def __str__(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        most = self.show(self.tolerable_loss)
        return f"at most {most} {self.criterion} loss, {better} is better"


def check_one_criterion(**given: object) -> None:
    """Refuse parts of one search that judge by different criteria.

    Args:
        **given:
            What each part judges by, under its name; what is no criterion does not count.

    Raises:
        ValueError:
            If two differ; it names both.
    """
    found = [(name, c) for name, c in given.items() if isinstance(c, AccuracyCriterion)]
    for name, criterion in found[1:]:
        first, other = found[0]
        if criterion != other:
            raise ValueError(
                f"The {_words(first)} uses another criterion than the {_words(name)}: {other}; "
                f"{_words(name)}: {criterion}. Give both the same AccuracyCriterion."
            )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(name: str, value: Any, *, is_part: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        cure = _in_percent(value, is_part=is_part)
        raise TypeError(f"{name} must be a number, but got {value!r}{cure}.")
    return float(value)


def _in_percent(value: Any, *, is_part: bool) -> str:
    """What to write for a percentage; empty if it is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if isinstance(value, str) else None
    if found is None:
        return ""
    part = f"{float(found[1]) / 100:g}"
    if is_part:
        return f"; for {value} give {part}"
    return (
        "; with criterion='absolute' it is in units of the metric, so for a part of it take "
        f"criterion='relative' with {part}"
    )


def check_is_criterion(given: object) -> None:
    """Refuse what stands in the place of a criterion.

    Raises:
        TypeError:
            If it is none.
    """
    if isinstance(given, AccuracyCriterion):
        return
    hint = "such as AccuracyCriterion(tolerable_loss=0.01)"
    if isinstance(given, Real) and not isinstance(given, bool):
        hint = f"as AccuracyCriterion(tolerable_loss={given!r})"
    elif given is AccuracyCriterion:
        hint = "and not the class: AccuracyCriterion()"
    raise TypeError(f"criterion must be an AccuracyCriterion, {hint}, but got {given!r}.")
