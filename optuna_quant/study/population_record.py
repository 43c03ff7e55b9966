"""Store the evaluation samples in a study: their order, and the FP32 model's scores."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.errors import DamagedRecordError


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna


_NAME = "population"
# Changed whenever the same seed and difficulties give another order.
_VERSION = 1


def write_population(
    study: optuna.Study, population: Population, *, levels: NDArray[np.uint8], seed: int
) -> str:
    """Keep in the study what its candidates are compared on, for every worker.

    It counts once the baseline refers to it: if two workers measure the baseline, because one
    was stale, the one that is kept has its own.

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
    baseline = get_baseline(study)
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
            f"The study {study.study_name!r} was started with another version of optuna_quant, "
            "which evaluates samples in another order. Use that version, or start a new study."
        )
    samples = head["samples"]
    levels = np.frombuffer(rest, dtype=np.uint8, count=samples)
    order = SampleOrder.draw(levels, seed=head["seed"])
    if order.digest != head["order"]:
        raise ValueError(
            f"The study {study.study_name!r} was started with another version of numpy, or on "
            "another kind of machine, whose random order of the evaluation samples differs "
            "from the one here. Use the same, or start a new study."
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
