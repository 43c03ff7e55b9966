"""Traces of the diagonal blocks of a Hessian, by random probes.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np
import torch

from optuna_quant.backends.sensitivity.torch_threads import QuickestThreads


if TYPE_CHECKING:
    from numpy.typing import NDArray


WeightedLoss: TypeAlias = tuple[float, Callable[[], torch.Tensor]]
"""A factor, and a function that computes a scalar from the leaves."""

# Probes that share one forward and one backward pass of a loss.
_ROUND = 8
# Rounds of probes that only serve to set the lengths of the others.
_PILOT_ROUNDS = (2, 2, 4)


@dataclass(frozen=True, eq=False)
class BlockTraces:
    """Estimates of the trace of each block.

    Args:
        estimates:
            What each probe gave for each block, of shape ``(probes, blocks)``; at least two
            probes.
    """

    estimates: NDArray[np.float64]

    @property
    def probes(self) -> int:
        """How many probes there are."""
        return int(self.estimates.shape[0])

    @property
    def trace(self) -> NDArray[np.float64]:
        """The mean over the probes, of shape ``(blocks,)``."""
        return np.asarray(self.estimates.mean(axis=0))

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Of the mean over the probes, of shape ``(blocks,)``."""
        return np.asarray(self.estimates.std(axis=0, ddof=1) / np.sqrt(self.probes))

    def converged(self, tolerance: float) -> NDArray[np.bool_]:
        """Whether each standard error is at most this part of its trace, shape ``(blocks,)``."""
        return np.asarray(self.standard_error <= tolerance * np.abs(self.trace))


def block_traces(
    losses: Sequence[WeightedLoss],
    leaves: Mapping[str, torch.Tensor],
    *,
    probes: int,
    tolerance: float,
    seed: int,
) -> BlockTraces:
    """Estimate the trace of each leaf's block of the Hessian of a weighted sum of losses.

    Hutchinson's estimator: for a vector ``z`` of independent random signs (Rademacher),
    ``z' H z`` has the mean ``trace(H)`` (M. F. Hutchinson, "A stochastic estimator of the trace of
    the influence matrix for Laplacian smoothing splines", 1990).

    One product of ``H`` with a probe for all leaves jointly serves all blocks. Let ``s_j z_j`` be
    the part of the probe that belongs to leaf ``j``. Part ``i`` of the product, times ``z_i``,
    over ``s_i``, is ``z_i' H_ii z_i`` plus ``(s_j / s_i) z_i' H_ij z_j`` for each other leaf.
    These terms across blocks have mean zero, because ``z_i`` and ``z_j`` are independent, so the
    estimate of each block's trace is unbiased for any lengths ``s``.

    Their variance is not zero. Where blocks differ in curvature by orders of magnitude, equal
    lengths drown the flat blocks in the noise of the steep ones. So 8 pilot probes, which do not
    enter the estimates, set ``s_j`` to one over the root of block ``j``'s trace, which makes the
    noise about the same part of each.

    Each loss has probes of its own, also unbiased, whose errors partly cancel in the sum.

    Args:
        losses:
            The parts of the sum.
        leaves:
            The leaf tensors by name; they require gradients.
        probes:
            The most probes, at least 2.
        tolerance:
            Stop as soon as the standard error of every block is at most this part of its trace.
            Looked at after every 8 probes.
        seed:
            Of the random signs.

    Raises:
        ValueError:
            If a product of the Hessian is not finite.
    """
    draw = _Probes(losses, leaves, seed)
    if len(leaves) > 1:
        for count in _PILOT_ROUNDS:
            draw.balance(draw.estimates(count))
    done = np.zeros((0, len(leaves)))
    while len(done) < probes:
        count = min(_ROUND, probes - len(done))
        done = np.concatenate([done, draw.estimates(count)])
        found = BlockTraces(done)
        if found.converged(tolerance).all():
            break
    return found


class _Probes:
    """Draws probes and gives what they say."""

    def __init__(
        self, losses: Sequence[WeightedLoss], leaves: Mapping[str, torch.Tensor], seed: int
    ) -> None:
        self._losses = losses
        self._names = list(leaves)
        self._leaves = list(leaves.values())
        self._generator = torch.Generator().manual_seed(seed)
        self._lengths = [1.0] * len(leaves)
        self._threads = QuickestThreads()

    def balance(self, pilot: NDArray[np.float64]) -> None:
        """Set the lengths, given estimates of shape ``(probes, blocks)``."""
        size = np.sqrt(np.mean(pilot**2, axis=0))
        # A block that is flat altogether has no length of its own.
        floor = 1e-12 * size.max(initial=0.0) or 1.0
        self._lengths = (1.0 / np.sqrt(np.maximum(size, floor))).tolist()

    def estimates(self, count: int) -> NDArray[np.float64]:
        """The estimates of so many probes, of shape ``(count, blocks)``."""
        total = np.zeros((count, len(self._leaves)))
        for factor, loss in self._losses:
            total += factor * self._threads.run(partial(self._of_one, loss, count))
        broken = [name for name, x in zip(self._names, total.T, strict=True) if not _finite(x)]
        if broken:
            raise ValueError(
                f"The Hessian of the loss is not finite in the weight of {broken[0]!r} "
                f"({len(broken)} of {len(self._names)} weights): the loss or the model has no "
                "second derivative at some sample, such as a square root at 0, or overflows; "
                "try dtype='float64'."
            )
        return total

    def _of_one(self, loss: Callable[[], torch.Tensor], count: int) -> NDArray[np.float64]:
        result = np.zeros((count, len(self._leaves)))
        gradients = torch.autograd.grad(
            loss(), self._leaves, create_graph=True, materialize_grads=True
        )
        # The others are constant: their blocks, and those beside them, are zero.
        live = [i for i, gradient in enumerate(gradients) if gradient.requires_grad]
        leaves = [self._leaves[i] for i in live]
        for number in range(count if live else 0):
            signs = [self._signs(leaf) for leaf in leaves]
            products = torch.autograd.grad(
                [gradients[i] for i in live],
                leaves,
                [self._lengths[i] * sign for i, sign in zip(live, signs, strict=True)],
                retain_graph=number + 1 < count,
                materialize_grads=True,
            )
            for i, sign, product in zip(live, signs, products, strict=True):
                dot = torch.sum(sign * product, dtype=torch.float64).item()
                result[number, i] = dot / self._lengths[i]
        return result

    def _signs(self, leaf: torch.Tensor) -> torch.Tensor:
        bits = torch.randint(0, 2, leaf.shape, generator=self._generator, dtype=torch.int8)
        return (2 * bits - 1).to(device=leaf.device, dtype=leaf.dtype)


def _finite(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all())
