"""What a metric depends on besides the model (data, labels, code, ...), as short strings."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

import numpy as np

from optuna_quant._common.code_digest import array_digest
from optuna_quant._common.code_digest import code_digest
from optuna_quant._common.code_digest import file_digest
from optuna_quant.data.image_folder import ImageFolder
from optuna_quant.data.labelled_data import ArrayData
from optuna_quant.data.labelled_dataset import DatasetData
from optuna_quant.data.loaders import Rows
from optuna_quant.data.sample_checks import LABELS
from optuna_quant.data.subset import SubsetData
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric


if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from optuna_quant.data.labelled_data import LabelledData


FUNCTION = "function"
METRIC_FUNCTION = "metric function"
DATASET = "dataset"
PREPROCESSING = "preprocessing"

MAY_BE_THE_SAME = frozenset({FUNCTION, METRIC_FUNCTION, DATASET, PREPROCESSING})
"""Parts that may differ though the scores are the same: they are about code, which is edited, or
about samples that a dataset gives, which may be random. Whether the scores are the same is
measured. Where any other part differs, so do the scores."""

UNKNOWN = "?"
"""The text of a part that cannot be told from others."""

# Of a dataset, so many samples are read.
_SAMPLES = 8
# Of a folder of images, so many are.
_FILES = 256
# Attributes of a data evaluation that say how the model is fed and what of it is scored.
_SETTINGS = {"output": "output_names", "inputs": "inputs"}
_TRANSFORMS = ("transform", "preprocess")


class HasDirection(Protocol):
    """The evaluation of labelled data, as far as its signature depends on it."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher metric is better."""

    @property
    def reference(self) -> str:
        """What outputs are compared with: labels, or the FP32 model's outputs."""


def signature_of(evaluation: object) -> dict[str, str]:
    """What the metrics of an evaluation depend on, besides the model.

    Args:
        evaluation:
            A function that gives the metric of a model; or an object with a method
            ``signature()`` that gives a dictionary of short strings, which is taken as it is.

    Returns:
        Short strings by part. Of a function that is ``"function"``: its name and a hash of its
        code, see :func:`optuna_quant._common.code_digest.code_digest`.
    """
    own = getattr(evaluation, "signature", None)
    if callable(own):
        return {str(part): str(text) for part, text in own().items()}
    return {FUNCTION: shown_function(evaluation)}


def shown_function(function: object) -> str:
    """A function's name, and a hash of its code or ``"?"``."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    digest = code_digest(function)
    return f"{name} {UNKNOWN if digest is None else digest[:16]}"


def data_signature(
    evaluation: HasDirection, *, metric: SampleMetric | CorpusMetric, data: LabelledData
) -> dict[str, str]:
    """What the metrics of labelled data depend on, besides the model.

    Args:
        evaluation:
            The evaluation; its settings are read.
        metric:
            Its metric.
        data:
            Its samples.

    Returns:
        ``"metric"``: its name, direction and bounds; ``"metric function"``: that and a hash of
        its code; ``"data"`` and ``"labels"``: content hashes of arrays (of more than 64 MB of
        parts all over them); or ``"dataset"``: a hash of some samples. ``"output"``,
        ``"inputs"`` and ``"preprocessing"`` where they were given.
    """
    better = "higher" if evaluation.higher_is_better else "lower"
    bounds = getattr(metric, "bounds", None)
    within = "" if bounds is None else f", from {bounds[0]:g} to {bounds[1]:g}"
    if evaluation.reference != "labels":
        within += f", compared with {evaluation.reference}"
    kind = "" if isinstance(metric, SampleMetric) else ", of the whole set"
    found = {
        "metric": f"{metric.name} ({better} is better{within}{kind})",
        METRIC_FUNCTION: shown_function(metric.score),
        **_of_data(data),
    }
    for part, attribute in _SETTINGS.items():
        value = _attribute(evaluation, attribute)
        if value:
            found[part] = _shown_setting(value)
    transforms = [
        value
        for owner in (evaluation, data)
        for attribute in _TRANSFORMS
        if callable(value := _attribute(owner, attribute))
    ]
    if transforms:
        found[PREPROCESSING] = "; ".join(map(shown_function, transforms))
    return found


def _attribute(owner: object, name: str) -> Any:
    return getattr(owner, name, getattr(owner, f"_{name}", None))


def _of_data(data: LabelledData) -> dict[str, str]:
    own = getattr(data, "signature", None)
    if callable(own):
        return {str(part): str(text) for part, text in own().items()}
    if isinstance(data, SubsetData):  # Which samples it has is known of a study by itself.
        return _of_data(data.whole)
    if isinstance(data, ArrayData):
        return _of_columns(data.arrays, has_labels=data.needs_labels)
    if not isinstance(data, DatasetData):
        return {DATASET: f"{data.samples} samples of {type(data).__qualname__}"}
    if isinstance(data.dataset, Rows):
        return _of_columns(data.dataset.columns, has_labels=data.needs_labels)
    if isinstance(data.dataset, ImageFolder):
        return {DATASET: f"{data.samples} images {_of_files(data.dataset.files)}"}
    return {DATASET: _of_dataset(data.dataset)}


def _of_columns(columns: Mapping[str, Any], *, has_labels: bool) -> dict[str, str]:
    named = next((name for name in LABELS if name in columns), None)
    data = {name: column for name, column in columns.items() if name != named}
    found = {"data": _combined((name, _of_sample(data[name])) for name in sorted(data))}
    if named is not None and has_labels:
        found["labels"] = _of_sample(columns[named])[:16]
    return found


def _of_files(files: Iterable[tuple[Path, int | None]]) -> str:
    """A hash of the names, sizes and classes of files, and of what some of them hold."""
    found = list(files)
    read = {place * (len(found) - 1) // (_FILES - 1) for place in range(_FILES)}
    return _combined(
        (
            file.name,
            f"{file.stat().st_size} {number} {file_digest(file) if place in read else ''}",
        )
        for place, (file, number) in enumerate(found)
    )


def _of_dataset(dataset: Any) -> str:
    """How many samples it has, and a hash of some."""
    count = len(dataset)
    places = sorted({place * (count - 1) // (_SAMPLES - 1) for place in range(_SAMPLES)})
    try:
        seen = [(str(place), _of_sample(dataset[place])) for place in places if count]
    except Exception:  # The evaluation tells it, with the sample's number.
        return f"{count} samples {UNKNOWN}"
    return f"{count} samples {_combined(seen)}"


def _of_sample(sample: Any) -> str:
    if isinstance(sample, Mapping):
        return _combined((str(name), _of_sample(sample[name])) for name in sample)
    if isinstance(sample, tuple | list) and not _is_plain(sample):
        return _combined(("", _of_sample(part)) for part in sample)
    return array_digest(np.asarray(sample))


def _is_plain(items: Sequence[Any]) -> bool:
    """Whether these are numbers, which are hashed in one piece."""
    return all(isinstance(item, bool | int | float) for item in items)


def _combined(parts: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, text in parts:
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def _shown_setting(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown_value(value[name])}" for name in sorted(value))
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(value)


def _shown_value(value: object) -> str:
    array = np.asarray(value)
    return str(array.item()) if array.size == 1 else array_digest(array)[:16]


def different_parts(known: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """The parts in which two signatures differ, or may differ because one is not known."""
    return [
        part
        for part in {**known, **given}
        if known.get(part) != given.get(part)
        or (part in MAY_BE_THE_SAME and given[part].endswith(UNKNOWN))
    ]
