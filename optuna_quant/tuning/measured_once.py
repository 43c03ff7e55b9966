"""Keep in the study what measuring its finalists has given, so that its record has one answer.

Times differ from one measurement to the next, and with them the fastest of several models that
take nearly the same. So the finalists are measured by one worker, once, and every other worker
and every later call takes what the study holds.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
import hashlib
import json
from typing import TYPE_CHECKING

from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Gain
from optuna_quant.study import record
from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.tuning.finalists import finalists


if TYPE_CHECKING:
    import optuna

    from optuna_quant.costs.objective import Objective
    from optuna_quant.selection.answer import Candidate


def measured_once(
    study: optuna.Study,
    found: Sequence[Candidate],
    measure: Callable[[Sequence[Candidate]], tuple[Candidate, Gain]],
) -> tuple[Candidate, Gain]:
    """The fastest of the finalists, and what it is worth, measured once for all workers.

    Args:
        study:
            The study, which keeps what was measured under the trials that were compared: with
            other finalists there is another measurement.
        found:
            The finalists.
        measure:
            Measures them, if the study does not know yet.

    Raises:
        Exception:
            What ``measure`` raises.
    """
    shared = ComputeOnce(study, _name(found))
    return _read(shared.get(lambda: _written(*measure(found))), found)


def recorded_measurement(
    study: optuna.Study, found: Sequence[Candidate]
) -> tuple[Candidate, Gain] | None:
    """What a study holds of the measurement of these finalists; :obj:`None` if there was none.

    Args:
        study:
            The study, which is only read.
        found:
            The finalists.

    Raises:
        DamagedRecordError:
            If that is not what was written.
    """
    kept = read_bytes(study, _name(found))
    return None if kept is None else _read(kept, found)


def measured_first(
    study: optuna.Study, met: Sequence[Candidate], objective: Objective
) -> list[Candidate]:
    """Candidates with the one first that the search has measured as the fastest, if it has.

    Args:
        study:
            The study, which is only read.
        met:
            Those that meet the criterion, the best by the record first.
        objective:
            What is best.
    """
    known = recorded_measurement(study, finalists(met, objective)) if met else None
    if known is None:
        return list(met)
    return [known[0], *(each for each in met if each is not known[0])]


def _name(found: Sequence[Candidate]) -> str:
    numbers = sorted(candidate.trial.number for candidate in found)
    digest = hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]
    return f"{record.FINALISTS}:{digest}"


def _written(best: Candidate, gain: Gain) -> bytes:
    return json.dumps({"trial": best.trial.number, "gain": asdict(gain)}).encode()


def _read(kept: bytes, found: Sequence[Candidate]) -> tuple[Candidate, Gain]:
    said = json.loads(kept)
    best = next(each for each in found if each.trial.number == said["trial"])
    ratio = said["gain"].pop("time_ratio")
    return best, Gain(**said["gain"], time_ratio=None if ratio is None else Ratio(**ratio))
