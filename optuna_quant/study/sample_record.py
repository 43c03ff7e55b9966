"""What a study keeps of single samples: the population, and the scores of each trial."""

from __future__ import annotations

import base64
from collections.abc import Callable
from collections.abc import Mapping
import hashlib
import json
import math
from typing import TYPE_CHECKING
from typing import Any
import zlib

import numpy as np

from optuna_quant._optuna import running_trial_id
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.study import record
from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.errors import DamagedRecordError


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna
    from optuna.trial import FrozenTrial


_NAME = "population"
# Changed whenever the same seed and difficulties give another order.
_VERSION = 1
# MySQL's TEXT holds 65,535 bytes.
_CHUNK = 30_000


def write_population(
    study: optuna.Study, population: Population, *, levels: NDArray[np.uint8], seed: int
) -> str:
    """Keep in the study what its candidates are compared on, for every worker.

    It counts once the baseline refers to it: if two workers measure the baseline, because the
    trial of one was stale, the one that is kept has its own.

    Args:
        study:
            The study.
        population:
            The population.
        levels:
            The difficulty of each sample, from which the order was drawn.
        seed:
            The seed with which it was drawn.

    Returns:
        The key under which it is kept.
    """
    head = {
        "samples": population.samples,
        # JSON has no infinity.
        "bounds": [bound if math.isfinite(bound) else None for bound in population.bounds],
        "higher_is_better": population.higher_is_better,
        "error_probability": population.error_probability,
        "method": population.method,
        "metric": population.metric_name,
        "seed": seed,
        "order": population.order.digest,
        "version": _VERSION,
    }
    if not population.in_parts:
        head["in_parts"] = False
    levels_and_scores = levels.tobytes() + population.baseline.astype("<f8").tobytes()
    data = json.dumps(head).encode() + b"\n" + levels_and_scores
    key = hashlib.sha256(data).hexdigest()[:16]
    write_bytes(study, f"{_NAME}:{key}", data)
    return key


def read_population(study: optuna.Study) -> Population | None:
    """What the candidates of a study are compared on; :obj:`None` if it keeps no samples.

    Raises:
        ValueError:
            If this machine draws another order of the samples than the one that measured the
            baseline.
    """
    baseline = record.get_baseline(study)
    if baseline is None or baseline.population is None:
        return None
    data = read_bytes(study, f"{_NAME}:{baseline.population}")
    if data is None:
        return None
    attribute = f"optuna_quant:{_NAME}:{baseline.population}"
    if hashlib.sha256(data).hexdigest()[:16] != baseline.population:
        raise DamagedRecordError(
            study.study_name, attribute, "is not what was written under its name"
        )
    text, _, rest = data.partition(b"\n")
    head = json.loads(text)
    if head["version"] != _VERSION:
        raise ValueError(
            f"The study {study.study_name!r} was begun with another version of optuna_quant, "
            "which evaluates samples in another order. Use that version, or begin a new study."
        )
    samples = head["samples"]
    levels = np.frombuffer(rest, dtype=np.uint8, count=samples)
    order = SampleOrder.draw(levels, seed=head["seed"])
    if order.digest != head["order"]:
        raise ValueError(
            f"The study {study.study_name!r} was begun with another version of numpy, or on "
            "another kind of machine, whose random order of the evaluation samples differs from "
            "the one here. Use the same, or begin a new study."
        )
    return Population(
        order=order,
        baseline=np.frombuffer(rest, dtype="<f8", offset=samples).astype(np.float64),
        bounds=(
            -math.inf if head["bounds"][0] is None else head["bounds"][0],
            math.inf if head["bounds"][1] is None else head["bounds"][1],
        ),
        higher_is_better=head["higher_is_better"],
        error_probability=head["error_probability"],
        method=head["method"],
        key=baseline.population,
        metric_name=head["metric"],
        in_parts=head.get("in_parts", True),
    )


def write_scores(
    write: Callable[[str, Any], None],
    scores: NDArray[np.float64],
    *,
    verdict: str,
    population: str = "",
) -> None:
    """Keep the scores of a trial's first samples, as the metric gives them.

    Args:
        write:
            Writes a system attribute of the trial.
        scores:
            The scores, in the order of evaluation.
        verdict:
            What they say about the criterion.
        population:
            The key of the population in whose order they are.
    """
    values = np.unique(scores) if len(scores) else np.empty(0)
    if len(values) <= 2:
        kind, data = "two", np.packbits(scores == values[-1:]).tobytes()
    else:
        kind, data = "all", scores.astype("<f8").tobytes()
    packed = base64.b64encode(zlib.compress(data)).decode()
    chunks = [packed[i : i + _CHUNK] for i in range(0, len(packed), _CHUNK)]
    for number, chunk in enumerate(chunks):
        write(f"{record.SCORES}:{number}", chunk)
    head: dict[str, Any] = {
        "samples": len(scores),
        "verdict": str(verdict),
        "population": population,
        "kind": kind,
        "chunks": len(chunks),
    }
    if kind == "two":
        head["values"] = values.tolist()
    head["digest"] = _digest(head, data)
    write(record.SCORES, head)


def _digest(head: Mapping[str, Any], data: bytes) -> str:
    """What tells whether scores, or what is said of them, were edited."""
    said = {name: value for name, value in head.items() if name != "digest"}
    text = json.dumps(said, sort_keys=True).encode()
    return hashlib.sha256(text + b"\n" + data).hexdigest()[:16]


def copy_scores(trial: optuna.Trial, other: FrozenTrial) -> None:
    """Keep the scores of another trial of the same model, if it has any, in this one as well."""
    trial_id, storage = running_trial_id(trial), trial.storage
    # The head last: a reader that sees it finds the rest.
    names = [name for name in other.system_attrs if name.startswith(record.SCORES)]
    for name in sorted(names, key=lambda name: name == record.SCORES):
        storage.set_trial_system_attr(trial_id, name, other.system_attrs[name])


def samples_of(attrs: Mapping[str, Any]) -> int | None:
    """How many samples a trial with these system attributes has seen; :obj:`None` if not known."""
    head = attrs.get(record.SCORES)
    return None if head is None else int(head["samples"])


def population_of(attrs: Mapping[str, Any]) -> str:
    """The key of the population whose samples a trial with these system attributes has seen."""
    return str(attrs.get(record.SCORES, {}).get("population", ""))


def read_scores(attrs: Mapping[str, Any]) -> NDArray[np.float64]:
    """The scores of the first samples, of a trial with these system attributes.

    Raises:
        ValueError:
            If they are not what was written.
    """
    head = attrs.get(record.SCORES)
    if head is None:
        return np.empty(0)
    try:
        scores = _decoded(head, attrs)
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise ValueError("or one of its pieces is not what was written") from error
    if len(scores) != head["samples"] or not np.isfinite(scores).all():
        raise ValueError(f"does not hold the finite scores of {head['samples']} samples")
    return scores


def _decoded(head: Mapping[str, Any], attrs: Mapping[str, Any]) -> NDArray[np.float64]:
    packed = "".join(attrs[f"{record.SCORES}:{number}"] for number in range(head["chunks"]))
    data = zlib.decompress(base64.b64decode(packed))
    if "digest" in head and head["digest"] != _digest(head, data):
        raise ValueError
    if head["kind"] == "all":
        return np.frombuffer(data, dtype="<f8").astype(np.float64)
    values = np.array(head["values"], dtype=np.float64)
    high = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=head["samples"]).astype(bool)
    return np.where(high, values[-1], values[0]) if len(values) else np.empty(0)
