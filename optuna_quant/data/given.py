"""What users may pass as data."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import TypeAlias


if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from optuna_quant.data.labelled_data import LabelledData


class Samples(Protocol):
    """A data set that gives samples by number, such as one of PyTorch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Batches: TypeAlias = "Iterable[Any] | Callable[[], Iterable[Any]]"
"""Batches or samples, or a function that gives an iterator over them."""

DataLike: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, ArrayLike] | tuple[ArrayLike, ArrayLike] | Samples "
    "| Batches | LabelledData"
)
"""Labelled data, in the forms that :func:`optuna_quant.data.sources.open_data` takes."""

InputValues: TypeAlias = "Mapping[str, ArrayLike]"
"""Inputs that are the same for all samples, by name: numbers, arrays or strings."""

Transform: TypeAlias = "Callable[[Any], Any]"
"""Makes the input of a model of what data hold of one sample: an array, an image, a text."""

CalibrationLike: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, ArrayLike] | ArrayLike | Samples | Batches"
)
"""Calibration data, in the forms that a backend takes."""
