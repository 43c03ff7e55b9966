"""A session of ONNX Runtime as a model that can be evaluated on data."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.backends.onnxruntime.model.session_run import run_session
from optuna_quant.data.inputs import InputSpec
from optuna_quant.workers.cores import available_cores


if TYPE_CHECKING:
    import onnxruntime

    from optuna_quant.backends.base.model import Feed


_DTYPES = {"float": "float32", "double": "float64", "string": "object"}


class SessionModel:
    """A session as a :class:`~optuna_quant.backends.base.RunnableModel`.

    Args:
        session:
            The session.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The inputs that every run must be given.

        Raises:
            TypeError:
                If one is of a type that arrays do not have.
        """
        return _specs(self._session.get_inputs())

    @cached_property
    def optional_inputs(self) -> tuple[InputSpec, ...]:
        """The inputs that have a value in the model, which a run may replace."""
        # What wraps a session need not have them.
        return _specs(getattr(self._session, "get_overridable_initializers", tuple)())

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return tuple(output.name for output in self._session.get_outputs())

    @property
    def threads(self) -> int:
        """The threads of a run."""
        options = self._session.get_session_options()
        return int(options.intra_op_num_threads) or available_cores()

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[Any]:
        """Compute outputs.

        Args:
            feed:
                An array for each input, by the input's name.
            outputs:
                The names of the outputs; None for all.

        Returns:
            A list with an array for each output.

        Raises:
            TypeError:
                If ``feed`` is not a mapping.
        """
        if not isinstance(feed, Mapping):
            raise TypeError(
                f"feed must be a dict from input names to arrays, but got {feed!r}. Call "
                "model.run(feed, outputs), or on its session model.session.run(outputs, feed)."
            )
        names = None if outputs is None else list(outputs)
        return run_session(self._session, names, feed)


def _specs(values: Sequence[Any]) -> tuple[InputSpec, ...]:
    """What a model expects of inputs, as a session describes them."""
    specs = []
    for given in values:
        kind = given.type.removeprefix("tensor(").removesuffix(")")
        try:
            dtype = np.dtype(_DTYPES.get(kind, kind))
        except TypeError:
            raise TypeError(
                f"Input {given.name!r} is of type {given.type}, which no array has: evaluate "
                "the model with your own function (evaluate=) instead of data."
            ) from None
        shape = tuple(given.shape) if given.shape else None
        specs.append(InputSpec(given.name, dtype, shape))
    return tuple(specs)
