"""The triangular factor of an inverse that GPTQ takes its steps from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack


if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_DAMPING = 1e3


def inverse_factor(
    gram: NDArray[np.float32], order: NDArray[np.intp], damping: float
) -> NDArray[np.float32]:
    """The upper triangular ``U`` with ``U.T @ U`` the inverse of a damped Gram matrix.

    Frantar et al. take the Cholesky factor of the inverse, which they get from another one.
    Here the matrix is factored once, from its last row to its first: of ``H = R @ R.T`` with an
    upper triangular ``R``, the inverse of ``R`` is ``U``. That is faster, and no inverse of an
    almost singular matrix has to be factored.

    Args:
        gram:
            Of shape ``[n, n]``, positive semidefinite, of any rank.
        order:
            The order to take its rows and columns in, of shape ``[n]``.
        damping:
            What part of the mean of the diagonal is added to it. It grows where that is not
            enough for a factor in floats.

    Returns:
        Of shape ``[n, n]``. Inputs that are always zero have no influence on others.
    """
    diagonal = gram.diagonal().astype(np.float64)
    mean = diagonal[diagonal > 0].mean() if np.any(diagonal > 0) else 1.0
    backwards = order[::-1]
    while True:
        # In units of the mean; float64, for the condition is that of the squared inputs.
        matrix = np.divide(gram[np.ix_(backwards, backwards)], mean, dtype=np.float64)
        matrix[np.diag_indices_from(matrix)] += np.where(diagonal > 0, damping, 1.0)[backwards]
        # LAPACK counts by columns: the transposed of an array of rows is the same memory.
        factor, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1, clean=1)
        if not failed:
            break
        if damping > _MOST_DAMPING:
            raise ValueError("the moments of a layer's inputs are not positive semidefinite")
        damping = max(10 * damping, 1e-6)
    inverse, failed = lapack.dtrtri(factor, lower=1, overwrite_c=1)
    assert not failed
    result: NDArray[np.float32] = np.ascontiguousarray(inverse[::-1, ::-1], dtype=np.float32)
    result /= np.float32(np.sqrt(mean))
    return result
