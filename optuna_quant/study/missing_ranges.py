"""The ops that have no quantization range, kept in their study for results, reports and lines."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
import hashlib
from typing import TYPE_CHECKING

from optuna_quant._common.printable import listed
from optuna_quant._optuna import study_user_attrs
from optuna_quant.backends.base import MissingRange
from optuna_quant.backends.base import TellsMissingRanges
from optuna_quant.study import record


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_MOST_NAMED = 4


class MissingRangesKeeper:
    """Keeps in the study which ops the backend found without a range; told of each trial.

    Each op has an attribute of its own, so that workers do not race.

    Args:
        backend:
            The backend.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._kept: set[str] = set()

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Keep what is known after a trial."""
        self.keep(study)

    def keep(self, study: optuna.Study) -> None:
        """Keep what is known now."""
        if not isinstance(self._backend, TellsMissingRanges):
            return
        found = self._backend.missing_ranges()
        new = found.keys() - self._kept
        if not new:
            return
        known = find_missing_ranges(study)
        for op in sorted(new - known.keys()):
            digest = hashlib.sha256(op.encode()).hexdigest()[:8]
            kept = [op, found[op].reason, found[op].samples]
            study.set_user_attr(f"{record.MISSING_RANGE}{digest}", kept)
        self._kept |= new


def find_missing_ranges(study: optuna.Study) -> dict[str, MissingRange]:
    """Why ops of a study have no quantization range, by op.

    Args:
        study:
            The study.
    """
    kept = (
        v
        for name, v in list(study_user_attrs(study).items())
        if name.startswith(record.MISSING_RANGE)
    )
    return {str(op): MissingRange(str(reason), str(where)) for op, reason, where in kept}


def never_quantized(space: TuningSpace, missing: Collection[str]) -> frozenset[str]:
    """The ops without a range that could be quantized in no other way than with one.

    Args:
        space:
            The tuning space.
        missing:
            The ops without a range.
    """
    return frozenset(
        op
        for tunable in space.tunables
        if all(option.mode == "static" for option in tunable.quantized)
        for op in tunable.ops
        if op in missing
    )


def as_it_runs(config: QuantConfig, missing: Collection[str]) -> QuantConfig:
    """A configuration in which ops that have no range are in floats, as they run.

    Args:
        config:
            The configuration.
        missing:
            The ops without a range.
    """
    floats = [op for op in missing if op in config.ops and config.ops[op].mode == "static"]
    return config.with_fallback(*floats) if floats else config


def shown_faults(missing: Mapping[str, MissingRange], total: int) -> str:
    """That calibration samples are why ops have no range, and what to do; empty if none are.

    Args:
        missing:
            The ops without a range.
        total:
            How many ops are searched.
    """
    ops = [op for op, each in missing.items() if each.samples]
    if not ops:
        return ""
    samples = list(dict.fromkeys(missing[op].samples for op in ops))
    have = "op has" if len(ops) == 1 else "ops have"
    stay = "stays" if len(ops) == 1 else "stay"
    gives = "gives" if len(samples) == 1 and " to " not in samples[0] else "give"
    return (
        f"{len(ops)} of {total} {have} no quantization range and {stay} in floats, because "
        f"{listed(samples, _MOST_NAMED)} {gives} NaN or infinite values there: "
        f"{listed(ops, _MOST_NAMED)}. Leave such samples out, or prepare them as for inference."
    )
