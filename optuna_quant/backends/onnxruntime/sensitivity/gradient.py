"""Sensitivity by gradients: how the error of each quantized op moves the model's outputs.

Torch is an extra, slow to import and large. So it is imported when there is something to compute:
a worker that finds the scores in the study's record does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.counts import check_positive
from optuna_quant._common.extras import install_hint
from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import SideBySide
from optuna_quant.backends.onnxruntime.torch_graph.supported import check_supported
from optuna_quant.backends.onnxruntime.torch_graph.supported import without_functions


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.sensitivity.output_gradients import OutputGradients
    from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import QuantizedCopies
    from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import Shown
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph


class GradientSensitivity(MSESensitivity):
    """How far the quantization of each op moves the model's outputs, to first order.

    One pass over the samples runs the FP32 graph and, beside it, a quantized copy of each op (see
    :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`), which gives the
    error of each op's own output; one backward pass per probe gives the gradient there of a random
    projection of the model's outputs. The square of their product, averaged over samples and
    probes, is the squared move of the outputs that this error alone brings about, as far as it is
    linear: the Gauss-Newton (Fisher) form of the second-order Taylor term, for the squared error
    of the outputs (Hassibi and Stork, "Second order derivatives for network pruning", 1992). It
    is divided by the variance of the outputs.

    So scores of different layers, and of different options of one op, are in one unit and can be
    added. They need no labels.

    Args:
        outputs:
            The names of the outputs that are looked at; None for all.
        probes:
            How many random projections are used for each batch.
        seed:
            The seed of the projections.
        **kwargs:
            See :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`.

    Raises:
        ImportError:
            If torch is not installed.
        UnsupportedOperatorError:
            If the model has operators without a torch counterpart.
        ValueError:
            If ``probes`` is not a positive number.
    """

    what = "the effect of their errors on the model's outputs"

    def __init__(
        self,
        *args: Any,
        outputs: Sequence[str] | None = None,
        probes: int = 4,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if find_spec("torch") is None:
            raise ImportError(
                f"Gradient sensitivity needs the package torch: {install_hint('torch')}."
            )
        super().__init__(*args, **kwargs)
        check_positive("probes", probes)
        check_supported(without_functions(self._graph.to_model()))
        self._outputs = None if outputs is None else tuple(outputs)
        self._probes = probes
        self._seed = seed
        self.key = f"gradient, {self.key}, probes={probes}, seed={seed}"
        if self._outputs is not None:
            self.key += f", outputs={list(self._outputs)}"

    def _set_graph(self, graph: Graph, static: Mapping[str, StaticOp]) -> None:
        super()._set_graph(graph, static)
        self._torch: TorchGraph | None = None

    def _errors(self, copies: Sequence[QuantizedCopies]) -> list[dict[Shown, float]]:
        sums = [dict.fromkeys(each.tensors, 0.0) for each in copies]
        if not any(sums):
            return sums
        runs = SideBySide(self._graph, copies, self._sessions)
        samples = 0
        output_gradients = self._output_gradients()
        for feed in runs.feeds(self._data, self._samples):
            gradients = output_gradients.of(feed, runs.shown)
            samples += gradients.samples
            exact = runs.exact(feed)
            for place, of_one in enumerate(sums):
                for shown, values in runs.copied(place, feed, exact).items():
                    error = _difference(exact[shown.tensor], values)
                    of_one[shown] += gradients.moved(shown.tensor, error)
        return [{key: value / samples for key, value in of_one.items()} for of_one in sums]

    def _output_gradients(self) -> OutputGradients:
        from optuna_quant.backends.onnxruntime.sensitivity.output_gradients import OutputGradients
        from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph

        if self._torch is None:
            self._torch = TorchGraph(self._graph.to_model(), base_dir=self._graph.base_dir)
        return OutputGradients(
            self._torch, outputs=self._outputs, probes=self._probes, seed=self._seed
        )


def _difference(exact: NDArray[Any], actual: NDArray[Any]) -> NDArray[np.float32]:
    if exact.shape != actual.shape:
        return np.asarray(exact, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.asarray(actual - exact, dtype=np.float32), posinf=0.0, neginf=0.0)
