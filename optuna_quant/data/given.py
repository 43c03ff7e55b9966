"""What users may pass as data."""

from __future__ import annotations

from collections.abc import Mapping
import os
from typing import TYPE_CHECKING
from typing import TypeAlias


if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from optuna_quant.data.forms import Batches
    from optuna_quant.data.forms import Samples
    from optuna_quant.data.labelled_data import LabelledData


DataLike: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, ArrayLike] | tuple[ArrayLike, ArrayLike] | Samples "
    "| Batches | LabelledData"
)
"""Labelled data, in the forms that :func:`optuna_quant.data.sources.open_data` takes."""

CalibrationLike: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, ArrayLike] | ArrayLike | Samples | Batches"
)
"""Calibration data, in the forms that a backend takes."""
