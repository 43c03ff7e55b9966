"""Gradients of a model's outputs in tensors inside it, by torch, which this module imports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_quant.backends.sensitivity.output_gradients import Gradients
from optuna_quant.backends.sensitivity.output_gradients import output_gradients
from optuna_quant.backends.sensitivity.tensors import to_tensor
from optuna_quant.data.outputs import choose_outputs


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph


class OutputGradients:
    """Takes the gradients of random projections of a model's outputs, batch by batch.

    Args:
        graph:
            The model.
        outputs:
            The names of the outputs that are looked at; None for all.
        probes:
            How many projections are used for each batch.
        seed:
            The seed of the projections.
    """

    def __init__(
        self, graph: TorchGraph, *, outputs: tuple[str, ...] | None, probes: int, seed: int
    ) -> None:
        self._torch = graph
        self._outputs = outputs
        self._probes = probes
        self._generator = torch.Generator().manual_seed(seed)

    def of(self, feed: Feed, tensors: Sequence[str]) -> Gradients:
        """The gradients in these tensors, of one batch."""
        inputs = {name: to_tensor(np.asarray(v), self._torch.dtype) for name, v in feed.items()}
        with torch.inference_mode(False), torch.enable_grad():
            found = self._torch.run(inputs, tensors)
            names = list(self._torch.outputs)
            if self._outputs is not None:
                names = list(choose_outputs(self._outputs, names))
            return output_gradients(
                [found[name] for name in names],
                {name: found[name] for name in tensors},
                probes=self._probes,
                generator=self._generator,
            )
