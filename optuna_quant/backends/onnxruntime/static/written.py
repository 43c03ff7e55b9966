"""A graph in the making: its nodes and constants, and Q/DQ pairs as the runtime takes them."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.graph import CONTRIB
from optuna_quant.backends.onnxruntime.model.graph import unused_name


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.ranges.qparams import Params


AXIS_OPSET = 13
"""The first opset whose DequantizeLinear has a channel axis; the runtime's own always has."""
_DTYPE_OPSET = 21
"""The first opset whose QuantizeLinear names its dtype, which the runtime forgets to change where
it makes unsigned values of signed ones; its own operator does not name it."""
_NEWEST_KERNEL = 25
"""The newest version of DequantizeLinear that the runtime knows."""


class WrittenGraph:
    """The nodes and constants of one candidate, as they are written.

    Args:
        graph:
            The graph of which nodes and tensors keep their names.
        for_cpu:
            Whether the runtime's CPU provider makes integer kernels of the pairs.

    Attributes:
        nodes:
            The nodes written.
        constants:
            The new initializers.
        digests:
            Hashes of the large ones among them.
        integers:
            The quantized tensor behind each tensor that comes out of a pair.
        shared:
            The tensors that several nodes read, by what they are.
    """

    def __init__(self, graph: Graph, *, for_cpu: bool = True) -> None:
        self._graph = graph
        self._taken: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.digests: dict[str, bytes] = {}
        self.integers: dict[str, str] = {}
        self.shared: dict[Hashable, str] = {}
        since = onnx.defs.get_schema("DequantizeLinear", graph.opset).since_version
        self._domain = "" if since <= _NEWEST_KERNEL else CONTRIB
        self._axis_domain = self._domain if graph.opset >= AXIS_OPSET else CONTRIB
        named = graph.opset >= _DTYPE_OPSET
        self._signed_domain = CONTRIB if named and for_cpu else self._domain
        self._wide_domain = self._domain if named else CONTRIB

    def name(self, wish: str) -> str:
        """A name that nothing else has."""
        name = wish
        if wish in self._taken or wish in self._graph.names:
            name = unused_name(wish, self._taken | self._graph.names)
        self._taken.add(name)
        return name

    def add(
        self, op_type: str, inputs: Sequence[str], output: str, *, domain: str = "", **kw: Any
    ) -> None:
        """Write a node, named after its output."""
        self.nodes.append(
            onnx.helper.make_node(
                op_type, inputs, [output], self.name(f"{output}_{op_type}"), domain=domain, **kw
            )
        )

    def constant(self, wish: str, array: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        name = self.name(wish)
        self.constants[name] = array
        return name

    def shared_constant(self, key: Hashable, wish: str, array: NDArray[Any]) -> str:
        """Add an initializer, once for each key."""
        if key not in self.shared:
            self.shared[key] = self.constant(wish, array)
        return self.shared[key]

    def barrier(self, tensor: str) -> str:
        """The same tensor behind an operator that does nothing and that the runtime keeps."""
        key = ("barrier", tensor)
        if key not in self.shared:
            self.shared[key] = output = self.name(f"{tensor}_same")
            self.add("Max", [tensor], output)
        return self.shared[key]

    def reshaped(self, tensor: str, shape: tuple[int | None, ...]) -> str:
        """The same tensor in another shape."""
        key = ("reshaped", tensor, shape)
        if key not in self.shared:
            self.shared[key] = output = self.name(f"{tensor}_matrix")
            self.add("Reshape", [tensor, self.shape(shape)], output)
        return self.shared[key]

    def shape(self, shape: tuple[int | None, ...]) -> str:
        """A shape, as a Reshape takes it."""
        return self.shared_constant(("shape", shape), "shape", np.array(shape, np.int64))

    def quantize(self, source: str, output: str, params: Params) -> None:
        """Write a pair from one tensor to another."""
        base = output.removesuffix("_dequantized")
        names = self.params(base, params)
        integers = self.name(f"{base}_quantized")
        self.integers[output] = integers
        domain = self._signed_domain if params.dtype == "int8" else self._domain_of(params.dtype)
        self.add("QuantizeLinear", [source, *names], integers, domain=domain)
        self.add("DequantizeLinear", [integers, *names], output, domain=domain)

    def _domain_of(self, dtype: str, axis: int | None = None) -> str:
        """The domain of operators on a type; that of 16 bits is standard since opset 21."""
        if np.iinfo(dtype).bits == 16:
            return self._wide_domain
        return self._domain if axis is None else self._axis_domain

    def dequantize(
        self, inputs: Sequence[str], output: str, axis: int | None, *, dtype: str = "int8"
    ) -> None:
        """Write a DequantizeLinear; with an axis if there is a scale for each channel."""
        domain = self._domain_of(dtype, axis)
        if axis is None:
            self.add("DequantizeLinear", inputs, output, domain=domain)
        else:
            self.add("DequantizeLinear", inputs, output, domain=domain, axis=axis)

    def quantize_constant(
        self, floats: str, names: Sequence[str], output: str, axis: int | None, *, dtype: str
    ) -> None:
        """Write a pair behind a constant of floats.

        Args:
            floats:
                The constant.
            names:
                Its scale and its zero point.
            output:
                What comes out of the pair.
            axis:
                The channel axis; None if there is one scale.
            dtype:
                The type of the integers.
        """
        domain = self._domain_of(dtype, axis)
        if dtype == "int8":
            domain = domain or self._signed_domain
        kw = {} if axis is None else {"axis": axis}
        integers = self.name(f"{floats}_quantized")
        self.add("QuantizeLinear", [floats, *names], integers, domain=domain, **kw)
        self.add("DequantizeLinear", [integers, *names], output, domain=domain, **kw)

    def params(self, tensor: str, params: Params) -> tuple[str, str]:
        """The scale and the zero point of a tensor as constants."""
        scale = self.shared_constant(
            ("scale", params), f"{tensor}_scale", np.array(params.scale, np.float32)
        )
        zero_point = self.shared_constant(
            ("zero_point", params),
            f"{tensor}_zero_point",
            np.array(params.zero_point, params.dtype),
        )
        return scale, zero_point
