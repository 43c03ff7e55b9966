"""The inputs of a model, as its graph declares them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from optuna_quant.data.inputs import InputSpec


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """Return the inputs that a model must be fed, in model order.

    Graph inputs that only give an initializer a name (as in models before IR version 4) have a
    value and are left out.

    Raises:
        TypeError:
            If an input is not a tensor.
    """
    valued = {initializer.name for initializer in model.graph.initializer}
    return _specs(value for value in model.graph.input if value.name not in valued)


def optional_input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """Return the inputs that have a value in the model, which callers can replace.

    Before version 4 of the format every weight was one.
    """
    valued = {initializer.name for initializer in model.graph.initializer}
    if model.ir_version < 4:
        return ()
    return _specs(value for value in model.graph.input if value.name in valued)


def _specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[InputSpec, ...]:
    specs = []
    for value in values:
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value")
            raise TypeError(f"Input {value.name!r} is a {kind}; only tensor inputs are supported.")
        tensor = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        shape = None
        if tensor.HasField("shape"):
            shape = tuple(
                axis.dim_value if axis.dim_value > 0 else axis.dim_param or None
                for axis in tensor.shape.dim
            )
        specs.append(InputSpec(value.name, dtype, shape))
    return tuple(specs)
