"""Labelled samples that an object gives one by one."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import copy
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.data.labelled_data import EVALUATION_DATA
from optuna_quant.data.labelled_data import Batch
from optuna_quant.data.labelled_data import LabelledData
from optuna_quant.data.labelled_data import as_array
from optuna_quant.data.labelled_data import no_labels
from optuna_quant.data.loaders import without_device
from optuna_quant.data.sample_checks import are_whole
from optuna_quant.data.sample_checks import at_least_one
from optuna_quant.data.sample_checks import check_fits
from optuna_quant.data.sample_checks import check_inputs
from optuna_quant.data.sample_checks import cure_of_texts
from optuna_quant.data.sample_checks import find_labels
from optuna_quant.data.sample_checks import have_batch_of_one
from optuna_quant.data.sample_checks import unwrapped
from optuna_quant.data.sample_checks import warn_of_others
from optuna_quant.data.transformed import transformed


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.forms import Samples
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.data.sample_runs import Rows


class DatasetData(LabelledData):
    """Samples that an object gives one by one, such as a dataset of PyTorch.

    Args:
        dataset:
            Has a length, and gives with an index a dict of arrays of one sample, or a pair of the
            inputs and the label. The inputs of a pair are a dict, or one array if the model has
            one input. There is no axis of samples in them; a sample that has all the axes that
            the model's inputs have is run by itself. Shapes may differ from sample to sample.
            Where no labels are needed, an array alone is a sample as well, if the model has one
            input.
        where:
            What it is, for error messages.
        transform:
            Function that gives the input as the model takes it, of what the dataset gives; with
            several inputs, a dict of a dict.
    """

    def __init__(
        self,
        dataset: Samples,
        where: str = EVALUATION_DATA,
        *,
        transform: Transform | None = None,
    ) -> None:
        self._where = where
        self._dataset = dataset
        self._transform = transform
        self._told: set[str] = set()

    @property
    def dataset(self) -> Samples:
        """What gives the samples."""
        return self._dataset

    @property
    def samples(self) -> int:
        """The number of samples."""
        return at_least_one(len(self._dataset), self._where)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the first sample fits a model's inputs."""
        at_least_one(len(self._dataset), self._where)
        self._sample(0, inputs)

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types in the first sample."""
        return {name: array.dtype for name, array in self._sample(0, inputs)[0].items()}

    def batch_in_item(self, inputs: Sequence[InputSpec]) -> int | None:
        """The length of the first item, if it has all of the model's axes and so many labels."""
        features, label = self._sample(0, inputs)
        shapes = {name: array.shape for name, array in features.items()}
        labels = label.shape[:1] if isinstance(label, np.ndarray) else ()
        sizes = {*(shape[:1] for shape in shapes.values()), labels}
        if len(sizes) > 1 or not self.needs_labels or not are_whole(inputs, shapes):
            return None
        (size,) = sizes
        return size[0] if size and size[0] > 1 else None

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        found: dict[str, list[NDArray[Any]]] = {spec.name: [] for spec in inputs}
        labels: list[Any] = []
        for index in map(int, indices):
            features, label = self._sample(index, inputs)
            for spec in inputs:
                # A dataset may give one buffer again and again.
                found[spec.name].append(np.array(features[spec.name]))
            labels.append(copy.deepcopy(label))
        rows = {spec.name: _stacked(found.pop(spec.name), spec.dtype) for spec in inputs}
        return rows, _stacked(labels) if self.needs_labels else no_labels(indices)

    def _sample(
        self, index: int, inputs: Sequence[InputSpec]
    ) -> tuple[dict[str, NDArray[Any]], Any]:
        where = f"sample {index} of {self._where}"
        try:
            sample = self._dataset[index]
        except Exception as error:
            raise ValueError(
                f"Sample {index} of {self._where} cannot be read: {type(error).__name__}: {error}"
            ) from error
        names = [spec.name for spec in inputs]
        if self._transform is not None:
            sample = transformed(self._transform, sample, names, where)
        label: object = np.empty(0)
        if isinstance(sample, Mapping) and not self.needs_labels:
            check_inputs(sample, names, where, labels=False)
            named: Mapping[str, Any] = sample
        elif isinstance(sample, Mapping):
            labels = find_labels(sample, inputs, where)
            named, label = sample, sample[labels]
            others = (name for name in sample if name != labels)
            warn_of_others(others, inputs, self._where, self._told)
        elif not self.needs_labels and len(names) == 1 and not isinstance(sample, tuple | list):
            named = {names[0]: sample}
        elif isinstance(sample, tuple | list) and len(sample) == 2:
            given, label = sample
            if isinstance(given, Mapping):
                check_inputs(given, names, where)
                warn_of_others(given, inputs, self._where, self._told)
                named = given
            elif len(names) == 1:
                named = {names[0]: unwrapped(given)}
            else:
                raise ValueError(
                    f"The inputs in {where} are of type {type(given).__name__}, but the model has "
                    f"{len(names)} inputs: give a dict with the keys {', '.join(names)}."
                    f"{cure_of_texts(given)}"
                )
        else:
            raise ValueError(
                f"Sample {index} of {self._where} must be a dict of arrays or a pair (inputs, "
                f"label), but is {_described(sample)}."
            )
        features = {s.name: as_array(named[s.name], s.name, where) for s in inputs}
        is_whole = are_whole(inputs, {name: array.shape for name, array in features.items()})
        for spec in inputs:
            array = features[spec.name]
            shape = array.shape if is_whole else (1, *array.shape)
            check_fits(spec, array.dtype, shape, where)
        if have_batch_of_one(inputs, {name: array.shape for name, array in features.items()}):
            features = {name: array[0] for name, array in features.items()}
        return features, _as_label(label) if self.needs_labels else np.empty(0)


def _as_label(value: object) -> Any:
    """A label as an array, or as it is if it is none (a dict, arrays of several shapes)."""
    try:
        array = np.asarray(without_device(value))
    except Exception:
        return value
    return value if array.dtype == object else array


def _stacked(rows: list[Any], dtype: np.dtype[Any] | None = None) -> Rows:
    """Samples along the first axis of an array; as a list if they do not have one shape."""
    if dtype is not None:
        rows = [row.astype(dtype, copy=False) for row in rows]
    if not all(isinstance(row, np.ndarray) for row in rows):
        return rows
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def _described(sample: object) -> str:
    """What a sample is that is no pair, and what to do, for the end of a sentence."""
    kind = type(sample).__name__
    if not isinstance(sample, tuple | list):
        return f"of type {kind}"
    if len(sample) == 1:
        return (
            f"a {kind} of 1 item, without a label: metrics that compare with the FP32 model need "
            "none (metric='agreement', 'cosine' or 'relative_error', with the item itself)"
        )
    return (
        f"a {kind} of {len(sample)} items: leave out what is neither of the two, such as weights "
        "of samples, which are not used: data=[data[i][:2] for i in range(len(data))]"
    )
