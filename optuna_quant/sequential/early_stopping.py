"""When the evaluation of a candidate ends before all samples were seen."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_quant.sequential.methods import check_error_probability
from optuna_quant.sequential.methods import check_method


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop the evaluation of a candidate as soon as it is decided.

    The samples come in an order that is drawn by weights, and
    :class:`~optuna_quant.sequential.WeightedThresholdTest` decides: a candidate that meets the
    criterion is given up with at most the error probability, however often the test is applied.

    Args:
        method:
            ``"paired"``: bet on the candidate's scores and on their differences from the FP32
            model's. ``"unpaired"``: on the candidate's alone. ``"exact"``: give up only what
            certainly fails.
        error_probability:
            The probability with which a candidate that meets the criterion may be given up: above
            0 and below 1.

    Raises:
        TypeError:
            If the error probability is not a number.
        ValueError:
            If it is out of its range, or the method is unknown.
    """

    method: str = "paired"
    error_probability: float = 1e-3

    def __post_init__(self) -> None:
        check_error_probability(self.error_probability)
        check_method(self.method)
