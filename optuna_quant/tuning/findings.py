"""What a search finds at its end, kept in the study for reports of its record alone.

Nothing that decides a search reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import json
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant.callbacks import StopReason
from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Gain
from optuna_quant.samplers import strategies
from optuna_quant.space.left_out import LeftOut
from optuna_quant.study import record
from optuna_quant.study.blobs import read_text
from optuna_quant.study.blobs import write_text
from optuna_quant.study.trial_view import views
from optuna_quant.tuning.call import Call
from optuna_quant.tuning.validation import HoldoutResult


if TYPE_CHECKING:
    import optuna

    from optuna_quant.selection.answer import Candidate
    from optuna_quant.tuning.outcome import Outcome


_logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a search has found at its end, and how it was started.

    Args:
        trials:
            How many trials had ended then: with more of them another model may be the answer.
        trial:
            The number of the trial whose model is the answer; :obj:`None` if there is none.
        gain:
            What it is worth beside FP32; :obj:`None` if that was not measured.
        holdout:
            Its result on the hold-out set; :obj:`None` if there is none.
        holdout_missing:
            Why there is none, if there is a hold-out set.
        strategy:
            The name of the strategy; :obj:`None` if none was started.
        call:
            What has started the search; :obj:`None` if that is not known.
        not_searched:
            The ops that were not searched, with the reason; :obj:`None` if that is not known.
    """

    trials: int
    trial: int | None = None
    gain: Gain | None = None
    holdout: HoldoutResult | None = None
    holdout_missing: str | None = None
    strategy: str | None = None
    call: Call | None = None
    not_searched: tuple[LeftOut, ...] | None = None

    def is_of_now(self, study: optuna.Study) -> bool:
        """Whether no trial has ended since.

        Args:
            study:
                The study.
        """
        return self.trials == _ended(study)

    def measured(self, found: Sequence[Candidate]) -> tuple[Candidate, Gain | None]:
        """The candidate that the search has measured as the best, with what it is worth.

        Args:
            found:
                The candidates, the best by the record first.
        """
        for each in found:
            if each.trial.number == self.trial:
                return each, self.gain
        return found[0], None


def keep_findings(result: Outcome) -> None:
    """Keep in the study what a search has found; if that fails, the result stands all the same.

    Args:
        result:
            The result of the search.
    """
    found = Findings(
        trials=_ended(result.study),
        trial=None if result.trial is None else result.trial.number,
        gain=result.gain,
        holdout=result.holdout,
        holdout_missing=result.holdout_missing,
        strategy=strategy_of(result),
        call=result.call,
        not_searched=result.not_searched,
    )
    try:
        write_text(result.study, record.FINDINGS, json.dumps(asdict(found)))
    except Exception as error:
        _logger.warning(f"The record of the study lacks what the search has found last: {error}")


def find_findings(study: optuna.Study) -> Findings | None:
    """What the last search in a study has found; :obj:`None` if it does not say it.

    Args:
        study:
            The study.

    Raises:
        DamagedRecordError:
            If that is not what was written.
    """
    kept = read_text(study, record.FINDINGS)
    if kept is None:
        return None
    said: dict[str, Any] = json.loads(kept)
    gain, holdout, call = said["gain"], said["holdout"], said["call"]
    if gain is not None:
        ratio = gain["time_ratio"]
        gain = Gain(**{**gain, "time_ratio": None if ratio is None else Ratio(**ratio)})
    if holdout is not None:
        interval = holdout["loss_interval"]
        holdout = HoldoutResult(
            **{**holdout, "loss_interval": None if interval is None else tuple(interval)}
        )
    call = None if call is None else Call(**call)
    ops = said.get("not_searched")  # Not in records of earlier versions.
    not_searched = None if ops is None else tuple(LeftOut(**each) for each in ops)
    read = {"gain": gain, "holdout": holdout, "call": call, "not_searched": not_searched}
    return Findings(**{**said, **read})


def strategy_of(result: Outcome) -> str | None:
    """The name of the strategy of a search; :obj:`None` if none was started.

    Args:
        result:
            The result of the search.
    """
    if result.stopped_because == StopReason.NO_GAIN:
        return None
    kind = type(result.study.sampler)
    return next((name for name, each in strategies().items() if each is kind), kind.__name__)


def _ended(study: optuna.Study) -> int:
    return sum(view.is_finished for view in views(study))
