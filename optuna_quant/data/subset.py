"""Some of the samples of labelled data."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.data.labelled_data import LabelledData


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.data.labelled_data import Batch


class SubsetData(LabelledData):
    """Some of the samples of other data, which are read when they are asked for.

    Args:
        data:
            All of them.
        indices:
            Which; the first of these is sample 0 here.
    """

    def __init__(self, data: LabelledData, indices: NDArray[np.integer[Any]]) -> None:
        self._all = data
        self._indices = np.asarray(indices)
        self.needs_labels = data.needs_labels

    @property
    def whole(self) -> LabelledData:
        """All of the samples."""
        return self._all

    @property
    def where(self) -> str:
        """What the data are, for messages."""
        return self._all.where

    def unused(self, inputs: Sequence[InputSpec]) -> list[str]:
        """The names of labels that are there and not needed, as far as that can be determined."""
        return self._all.unused(inputs)

    def dtypes(self, inputs: Sequence[InputSpec]) -> Mapping[str, np.dtype[Any]]:
        """The types in which the inputs are given, as far as that can be determined."""
        return self._all.dtypes(inputs)

    def batch_in_item(self, inputs: Sequence[InputSpec]) -> int | None:
        """How many samples an item seems to hold that is taken as one; None if it is one."""
        return self._all.batch_in_item(inputs)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self._indices)

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Check that the samples fit a model's inputs."""
        self._all.check(inputs)

    def batch(self, indices: NDArray[np.integer[Any]], inputs: Sequence[InputSpec]) -> Batch:
        """The inputs and the labels of some samples."""
        return self._all.batch(self._indices[indices], inputs)
