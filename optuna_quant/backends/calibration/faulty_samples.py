"""Which calibration sample gives values that are NaN or infinite."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Collection
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.calibration.pieces import Piece


def is_nan(values: NDArray[Any]) -> bool:
    """Whether a floating-point array holds a NaN."""
    return values.dtype.kind == "f" and bool(np.isnan(values).any())


def is_not_finite(values: NDArray[Any]) -> bool:
    """Whether a floating-point array holds what is NaN or infinite."""
    return values.dtype.kind == "f" and not np.isfinite(values).all()


class FaultySamples:
    """Finds the samples at fault: a batch with such values is run again, a sample at a time.

    Args:
        data:
            The calibration data.
        values_of:
            Runs a batch, and gives the values of the tensors of these names.
    """

    def __init__(
        self,
        data: CalibrationData,
        values_of: Callable[[Feed, Collection[str]], Mapping[str, NDArray[Any]]],
    ) -> None:
        self._data = data
        self._values_of = values_of

    def find(
        self,
        tensors: Collection[str],
        piece: Piece,
        seen: int,
        *,
        test: Callable[[NDArray[Any]], bool] = is_not_finite,
    ) -> dict[str, str]:
        """Where tensors that hold such values for a batch do so first, in words.

        Args:
            tensors:
                The names of the tensors.
            piece:
                The batch.
            seen:
                How many samples came before it.
            test:
                Whether values are such.
        """
        found: dict[str, str] = {}
        if piece.samples > 1:
            # A model that cannot run on a sample alone says nothing about them.
            with contextlib.suppress(Exception):
                for number, feed in enumerate(self._data.one_by_one(piece), seen):
                    looked_for = [name for name in tensors if name not in found]
                    if not looked_for:
                        break
                    for name, values in self._values_of(feed, looked_for).items():
                        if test(values):
                            found[name] = shown_samples(number, 1)
        # What depends on the batch, or cannot be taken apart, is told of the batch.
        whole = shown_samples(seen, piece.samples)
        return {name: found.get(name, whole) for name in tensors}


class OutputCheck:
    """Refuses samples for which the FP32 model's output is NaN, while it is not for others.

    Where it is NaN for all, the model may have such an output, or nothing has a range.

    Args:
        faults:
            Finds the samples.
    """

    def __init__(self, faults: FaultySamples) -> None:
        self._faults = faults
        self._found = ""
        self._is_good_elsewhere = False

    def see(self, name: str, values: NDArray[Any], piece: Piece, seen: int) -> None:
        """Look at the output for a batch.

        Args:
            name:
                Its name.
            values:
                Its values.
            piece:
                The batch.
            seen:
                How many samples came before it.
        """
        is_bad = is_nan(values)
        if not is_bad:
            self._is_good_elsewhere = True
        elif values.ndim and len(values) == piece.samples:
            rows = np.isnan(values).reshape(len(values), -1).any(axis=1)
            self._is_good_elsewhere |= not rows.all()
        if is_bad and not self._found:
            self._found = self._faults.find([name], piece, seen, test=is_nan)[name]

    def check(self) -> None:
        """Tell what was found, after the pass.

        Raises:
            ValueError:
                If the output is NaN for some samples.
        """
        if self._found and self._is_good_elsewhere:
            raise ValueError(
                f"The FP32 model's output is NaN for {self._found}, and so are tensors that are "
                "to be quantized: they have no range. Leave the sample out, or prepare it as for "
                "inference; a text without tokens, for instance, has nothing that attention "
                "could look at."
            )


def shown_samples(first: int, count: int) -> str:
    """Calibration samples, in words.

    Args:
        first:
            The number of the first.
        count:
            How many there are.
    """
    if count == 1:
        return f"calibration sample {first}"
    return f"calibration samples {first} to {first + count - 1}"
