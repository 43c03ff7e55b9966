"""What GPTQ and AWQ need to know of a layer's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from scipy.linalg import blas


if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ROWS = 4096
"""Inputs that are added at a time."""
_CHANGES = 256
"""Changes whose errors are computed at a time."""


class InputMoments:
    """Sums over the inputs ``x`` of a layer, in memory that does not grow with their number.

    The squared error of a layer's outputs by a change ``D`` of its weight, summed over all inputs,
    is ``trace(D @ gram @ D.T)``. So no inputs need to be stored to compare weights by what they do
    to the outputs, and the inputs may come in batches of any shape and length.

    Args:
        inputs:
            The number of values of an input: its last axis.
    """

    def __init__(self, inputs: int) -> None:
        if inputs < 1:
            raise ValueError(f"inputs must be at least 1, but it is {inputs}")
        self.inputs = inputs
        self.count = 0
        # BLAS adds to one triangle in place: half the work, and no other array of that size.
        self._upper: NDArray[np.float32] = np.zeros((inputs, inputs), np.float32, order="F")
        self._magnitudes = np.zeros(inputs, np.float64)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self._upper.nbytes + self._magnitudes.nbytes

    def add(self, x: NDArray[Any]) -> None:
        """Add a batch.

        Args:
            x:
                Floats of shape ``[..., inputs]``; the axes before may differ from batch to batch.

        Raises:
            ValueError: If the last axis has another size, or if a value is not finite or so large
                that its square is not.
        """
        if x.ndim < 1 or x.shape[-1] != self.inputs:
            raise ValueError(
                f"the layer has {self.inputs} inputs, but a batch of shape {x.shape} was added: "
                "its last axis must be the inputs"
            )
        rows = x.reshape(-1, self.inputs)
        for start in range(0, len(rows), _ROWS):
            self._add_rows(np.ascontiguousarray(rows[start : start + _ROWS], np.float32))

    def _add_rows(self, rows: NDArray[np.float32]) -> None:
        magnitudes = np.abs(rows)
        # NaN passes through the maximum; a square root of the largest float may not be exceeded.
        if not magnitudes.max() < 1e18:
            raise ValueError(
                f"a layer's inputs must be finite and below 1e18, but one is {magnitudes.max()}: "
                "check the calibration data and the model"
            )
        self.count += len(rows)
        self._magnitudes += magnitudes.sum(axis=0, dtype=np.float64)
        self._upper = blas.ssyrk(1.0, rows.T, beta=1.0, c=self._upper, overwrite_c=1)

    def merge(self, other: InputMoments) -> None:
        """Add what another one has seen, as for layers that share a weight.

        Raises:
            ValueError:
                If it is of another number of inputs.
        """
        if other.inputs != self.inputs:
            raise ValueError(
                f"moments of {other.inputs} inputs cannot be merged into those of {self.inputs}"
            )
        self.count += other.count
        self._upper += other._upper
        self._magnitudes += other._magnitudes

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, for :meth:`from_arrays`."""
        # One column at a time: an index of the triangle would be larger than the matrix.
        columns = [self._upper[: column + 1, column] for column in range(self.inputs)]
        return {
            "count": np.array(self.count, np.int64),
            "upper": np.concatenate(columns),
            "magnitudes": self._magnitudes,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> InputMoments:
        """What :meth:`to_arrays` has given, to the last bit."""
        moments = cls(len(arrays["magnitudes"]))
        moments.count = int(arrays["count"])
        moments._magnitudes = arrays["magnitudes"]
        start = 0
        for column in range(moments.inputs):
            end = start + column + 1
            moments._upper[: column + 1, column] = arrays["upper"][start:end]
            start = end
        return moments

    def gram(self) -> NDArray[np.float32]:
        """The sum of ``x.T @ x``, of shape ``[inputs, inputs]``, as a new array."""
        upper = np.triu(self._upper)
        return upper + np.triu(upper, 1).T

    def block(self, part: slice) -> NDArray[np.float32]:
        """The part of :meth:`gram` that is of some inputs."""
        upper = np.triu(self._upper[part, part])
        return upper + np.triu(upper, 1).T

    def output_errors(self, changes: NDArray[np.float32]) -> NDArray[np.float64]:
        """The squared error of an output, over all inputs, by each of some changes of its weights.

        Args:
            changes:
                Of shape ``[n, inputs]``.

        Returns:
            ``change @ gram @ change`` of each, of shape ``[n]``.
        """
        # With U the upper triangle it is 2 * change @ U @ change without the diagonal once: half
        # the work of the whole matrix, and no copy of it.
        found = np.empty(len(changes), np.float64)
        for start in range(0, len(changes), _CHANGES):
            rows = slice(start, start + _CHANGES)
            change = np.ascontiguousarray(changes[rows])
            columns = np.array(change.T, order="F")
            product = blas.strmm(1.0, self._upper, columns, trans_a=1, overwrite_b=1).T
            found[rows] = np.einsum("oi,oi->o", product, change)
            np.square(change, out=product)
            found[rows] = 2 * found[rows] - product @ self._upper.diagonal()
        # Rounding may make a sum that is almost zero negative.
        return np.maximum(found, 0.0, out=found)

    def squares(self) -> NDArray[np.float32]:
        """The sum of the squares of each input, of shape ``[inputs]``."""
        return self._upper.diagonal().copy()

    def mean_magnitude(self) -> NDArray[np.float32]:
        """The mean of the absolute values of each input, of shape ``[inputs]``."""
        return (self._magnitudes / max(self.count, 1)).astype(np.float32)
