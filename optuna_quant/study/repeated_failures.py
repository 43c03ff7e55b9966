"""Detect that every candidate fails in the same way, so that trying others is useless.

That several candidates fail alike does not say it yet: if one op cannot be run quantized, all
candidates fail in which it is, and a strategy may try many of those before it leaves the op in
FP32. So models in which a single op is quantized are tried, one for each op type. If they fail in
the same way, too, it is not up to an op.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
import re
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant._optuna import set_study_system_attr
from optuna_quant._optuna import study_system_attrs
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_ENOUGH = 3
_ENOUGH_TO_ASK = 2
_MOST_OP_TYPES = 5
_LONGEST_COMPARED = 200

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"\S*/\S+")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class RepeatedFailure:
    """Candidates that have all failed in the same way, without exception.

    Args:
        reason:
            Why the last one failed.
        trials:
            How many trials failed.
        configs:
            How many configurations they were of.
        open:
            Models of a single quantized op that are still to be tried before it can be said that
            no op is to blame.
    """

    reason: str
    trials: int
    configs: int
    open: tuple[QuantConfig, ...]

    @property
    def is_certain(self) -> bool:
        """Whether all candidates can be taken to fail."""
        return not self.open and self.configs >= _ENOUGH


def repeated_failure(
    study: optuna.Study, trials: Sequence[FrozenTrial], space: TuningSpace
) -> RepeatedFailure | None:
    """The repeated failure, if any; :obj:`None` if failures differ or something was evaluated.

    Args:
        study:
            The study.
        trials:
            Its trials.
        space:
            The tuning space.
    """
    failed = []
    for view in map(TrialView, trials):
        if not view.is_finished or view.is_baseline:
            continue
        if view.state != TrialState.FAIL:
            if view.reused_from is None:
                return None
        elif view.failure is not None:
            failed.append(view)
    if len(failed) < _ENOUGH_TO_ASK:
        return None
    start = failures_from(study)
    # Not what was enqueued and is no configuration of the space: it says nothing of the others.
    failed = [v for v in failed if v.number >= start and _key(v, space) is not None]
    if len({_kind(view) for view in failed}) != 1:
        return None
    keys = {_key(view, space) for view in failed}
    if len(keys) < _ENOUGH_TO_ASK:
        return None
    still = tuple(config for config in single_ops(space) if config.key not in keys)
    reason = str(failed[-1].failure)
    return RepeatedFailure(reason, len(failed), len(keys), still)


def try_single_ops(study: optuna.Study, failure: RepeatedFailure, space: TuningSpace) -> None:
    """Put the models that are still to be tried into the queue of a study."""
    asked = {
        space.key_from_params(view.fixed_params)
        for view in views(study)
        if not view.is_finished and view.is_probe
    }
    for config in failure.open:
        # Workers that do so at the same time may try one twice, no more.
        if config.key not in asked:
            study.enqueue_trial(space.params_of(config), user_attrs={record.IS_PROBE: True})


def try_again(study: optuna.Study, space: TuningSpace) -> None:
    """Ignore the failures that ended an earlier search: their cause may be fixed.

    To be called at the start of a search, when no other process works on the study.
    """
    trials = study.get_trials(deepcopy=False)
    failure = repeated_failure(study, trials, space)
    if failure is not None and failure.is_certain:
        set_study_system_attr(study, record.FAILURES_FROM, len(trials))


def failures_from(study: optuna.Study) -> int:
    """The number of the first trial whose failure counts."""
    return int(study_system_attrs(study).get(record.FAILURES_FROM, 0))


def single_ops(space: TuningSpace) -> tuple[QuantConfig, ...]:
    """Configurations that quantize one op, or group of ops, each: one for each op type.

    Of the five types that are there most often; of two ops, if all are of one type.
    """
    choices = [t for t in space.tunables if t.quantized and t.fallbacks]
    fallback = {op: t.fallbacks[0] for t in space.tunables if t.fallbacks for op in t.ops}
    base = space.default().with_ops(fallback)
    types = Counter(t.op_type for t in choices)
    first = {t.op_type: t for t in reversed(choices)}
    chosen = [first[op_type] for op_type, _ in types.most_common(_MOST_OP_TYPES)]
    if len(types) == 1 and choices[-1] != chosen[0]:
        chosen.append(choices[-1])
    return tuple(t.set(base, t.default) for t in chosen)


def _key(view: TrialView, space: TuningSpace) -> str | None:
    key = space.key_from_params(view.trial.params)
    if key is not None:
        return key
    claim = view.claim
    return None if claim is None else claim.key


def _kind(view: TrialView) -> str:
    """The reason without what differs between models: names, paths, numbers."""
    text = _QUOTED.sub("'...'", str(view.failure))
    text = _NUMBER.sub("0", _PATH.sub(".../...", text))
    return " ".join(text.split())[:_LONGEST_COMPARED]
