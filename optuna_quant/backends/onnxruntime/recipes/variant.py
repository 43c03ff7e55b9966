"""A graph that candidates are built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.builder import CandidateBuilder
    from optuna_quant.backends.onnxruntime.candidate_ranges import CandidateRanges
    from optuna_quant.backends.onnxruntime.model.graph import Graph


@dataclass(frozen=True, eq=False)
class Variant:
    """A graph with the function of the user's, and what candidates are built from it with.

    Args:
        graph:
            The graph.
        builder:
            Builds candidates.
        ranges:
            Calibrates for them.
    """

    graph: Graph
    builder: CandidateBuilder
    ranges: CandidateRanges
