"""Store in a trial the score of each sample that it has seen."""

from __future__ import annotations

import base64
from collections.abc import Callable
from collections.abc import Mapping
import hashlib
import json
from typing import TYPE_CHECKING
from typing import Any
import zlib

import numpy as np

from optuna_quant.sequential import Decision
from optuna_quant.study import record


if TYPE_CHECKING:
    from numpy.typing import NDArray


# MySQL's TEXT holds 65,535 bytes.
_CHUNK = 30_000


def write_scores(
    write: Callable[[str, Any], None],
    scores: NDArray[np.float64],
    *,
    decision: str,
    population: str = "",
) -> None:
    """Keep the scores of a trial's first samples, as the metric gives them.

    Args:
        write:
            Writes a system attribute of the trial.
        scores:
            The scores, in the order of evaluation.
        decision:
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
        "decision": str(decision),
        "population": population,
        "kind": kind,
        "chunks": len(chunks),
    }
    if kind == "two":
        head["values"] = values.tolist()
    head["digest"] = _digest(head, data)
    write(record.SCORES, head)


def _digest(head: Mapping[str, Any], data: bytes) -> str:
    """A digest that shows whether scores, or statements about them, were edited."""
    said = {name: value for name, value in head.items() if name != "digest"}
    text = json.dumps(said, sort_keys=True).encode()
    return hashlib.sha256(text + b"\n" + data).hexdigest()[:16]


def copy_scores(write: Callable[[str, Any], None], attrs: Mapping[str, Any]) -> None:
    """Keep the scores of another trial of the same model, if it has any, in a trial as well.

    Args:
        write:
            Writes a system attribute of the trial.
        attrs:
            The system attributes of the other trial.
    """
    # The head last: who sees it finds the rest.
    names = [name for name in attrs if name.startswith(record.SCORES)]
    for name in sorted(names, key=lambda name: name == record.SCORES):
        write(name, attrs[name])


def samples_of(attrs: Mapping[str, Any]) -> int | None:
    """How many samples a trial with these system attributes has seen; :obj:`None` if not known."""
    head = attrs.get(record.SCORES)
    return None if head is None else int(head["samples"])


def population_of(attrs: Mapping[str, Any]) -> str:
    """The key of the population whose samples a trial with these system attributes has seen."""
    return str(attrs.get(record.SCORES, {}).get("population", ""))


def decision_of(attrs: Mapping[str, Any]) -> Decision:
    """What a trial with these system attributes has concluded from its samples."""
    return Decision(attrs.get(record.SCORES, {}).get("decision", Decision.OPEN))


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
