"""Whether the runtime's 8-bit products saturate on this processor."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig


_logger = get_logger(__name__)

_DEPTH = 64
_ACTIVATION, _WEIGHT = 255, 127
"""The largest values: two products of theirs are twice as much as 16 bits hold."""

_SATURATING = (
    "Sums of 8-bit products saturate in ONNX Runtime on this processor, which has no VNNI "
    "instructions: quantized models are less accurate here than on others, and more ops may "
    "have to stay in FP32. If the model will run on such processors, compare reduce_range=True "
    "and the session option session.x64quantprecision; otherwise tune it where it will run."
)


def products_saturate(sessions: SessionMaker) -> bool:
    """Whether unsigned activations and signed weights give wrong products, found out by a trial.

    On x86 processors without VNNI instructions the runtime's kernels add two products in 16 bits.
    Where the session options ask for precision, or with another provider, they need not. It takes
    about a millisecond.

    Args:
        sessions:
            Makes the session to try it with.

    Returns:
        Whether they are wrong; False if the providers cannot tell.
    """
    rows, columns = 4, 16
    weight = np.full((_DEPTH, columns), _WEIGHT, dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "saturation",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [rows, _DEPTH])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)
    activation = np.full((rows, _DEPTH), _ACTIVATION, dtype=np.uint8)
    try:
        (products,) = sessions.make(model).run(None, {"x": activation})
    except Exception as error:  # Of a kind that the provider chooses; nothing depends on it.
        _logger.debug(f"Cannot tell whether 8-bit products saturate: {error}")
        return False
    return bool(np.any(products != _DEPTH * _ACTIVATION * _WEIGHT))


class SaturationCheck:
    """Finds out once whether products saturate, and tells the user once.

    Args:
        sessions:
            Makes the session to try it with.
        cannot_saturate:
            Whether they cannot, because weights use 7 bits only or products are of floats.
    """

    def __init__(self, sessions: SessionMaker, *, cannot_saturate: bool) -> None:
        self._sessions = sessions
        self._cannot_saturate = cannot_saturate
        self._is_told = False

    @cached_property
    def saturates(self) -> bool:
        """Whether sums of 8-bit products saturate."""
        return not self._cannot_saturate and products_saturate(self._sessions)

    def tell(self, config: QuantConfig) -> None:
        """Tell the user at the first configuration with weights of which products saturate."""
        if self._is_told:
            return
        weights = (op.weight for op in config.ops.values() if op.is_quantized)
        if any(weight is not None and weight.dtype == "int8" for weight in weights):
            self._is_told = True
            if self.saturates:
                _logger.info(_SATURATING)
