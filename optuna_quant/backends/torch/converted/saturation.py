"""Whether integer kernels of this processor saturate on the way."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from optuna.logging import get_logger
import torch


if TYPE_CHECKING:
    from optuna_quant.backends.torch.candidates.plan import ModelPlan


_logger = get_logger(__name__)

_DEPTH = 64
_ACTIVATION, _WEIGHT = 255, 127
"""The largest values: two products of theirs are twice as much as 16 bits hold."""

SATURATING = (
    "Sums of 8-bit products saturate in PyTorch's integer kernels on this processor, which has no "
    "VNNI instructions: converted programs are less accurate here than on others and than their "
    "simulations, and more ops may have to stay in FP32. If the model will run on such "
    "processors, compare reduce_range=True; otherwise tune where it will run."
)


@cache
def products_saturate() -> bool:
    """Whether unsigned activations and signed weights give wrong products, found out by a trial.

    On x86 processors without VNNI instructions oneDNN adds two products in 16 bits.

    Returns:
        Whether they are wrong; False without torchao, where integers are computed in floats, or if
        there is no such kernel.
    """
    if find_spec("torchao") is None:
        return False
    ops = torch.ops.onednn
    weight = torch.full((16, _DEPTH), _WEIGHT, dtype=torch.int8)
    x = torch.full((4, _DEPTH), _ACTIVATION, dtype=torch.uint8)
    ones, zeros = torch.ones(16), torch.zeros(16, dtype=torch.long)
    try:
        packed = ops.qlinear_prepack(weight, list(x.shape))
        products = ops.qlinear_pointwise(
            x, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
    except Exception as error:  # Of a kind that the build of PyTorch decides.
        _logger.debug(f"Cannot tell whether 8-bit products saturate: {error}")
        return False
    return bool((products != _DEPTH * _ACTIVATION * _WEIGHT).any())


class Arithmetic:
    """How this processor multiplies the integers of a backend's models.

    Args:
        approach:
            The approach to quantization.
        reduce_range:
            Whether 8-bit weights that meet 8-bit activations use 7 bits.
    """

    def __init__(self, approach: str, *, reduce_range: bool) -> None:
        self._may_saturate = approach != "weight_only" and not reduce_range
        self._is_told = False

    @property
    def saturates(self) -> bool:
        """Whether sums of products saturate."""
        return self._may_saturate and products_saturate()

    def tell(self, plan: ModelPlan) -> None:
        """Say once that integer kernels saturate here, if a plan has any."""
        if self._is_told:
            return
        if any(op.mode in ("static", "dynamic") for op in plan.ops.values()):
            self._is_told = True
            if self.saturates:
                _logger.warning(SATURATING)
