"""What the runtime really runs for the ops of a candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.executed.executed import ExecutedOp
from optuna_quant.backends.onnxruntime.executed.executed import executed_ops
from optuna_quant.backends.onnxruntime.model.session_maker import load_errors


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Collection
    from collections.abc import Iterable
    from collections.abc import Mapping

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.space.config import QuantConfig


def simulated_ops(ops: Iterable[str], target: str) -> dict[str, ExecutedOp]:
    """What is known of the ops of a candidate that is only simulated: nothing.

    Args:
        ops:
            The ops' names.
        target:
            What the candidate is for.
    """
    note = f"not known: simulated for {target!r}, which is not here"
    return {op: ExecutedOp("", False, None, note) for op in ops}


def executed_in_candidate(
    candidate: QuantizedModel, ops: Collection[str], graph: Graph, sessions: SessionMaker
) -> dict[str, ExecutedOp]:
    """Tell what the runtime really executes for ops of a candidate.

    Args:
        candidate:
            The candidate.
        ops:
            The ops' names.
        graph:
            The graph that the candidate was built from.
        sessions:
            Says with which providers and options it runs.

    Raises:
        ModelLoadError:
            If the runtime does not load the candidate.
    """
    outputs = {node.name: node.output[0] for node in graph.nodes if node.output}
    with sessions.lock, sessions.options_at_level() as options, load_errors():
        return executed_ops(
            candidate.proto,
            list(ops),
            {op: outputs[op] for op in ops},
            providers=sessions.providers,
            session_options=options,
            external_data_dir=graph.base_dir,
        )


def with_reasons(
    executed: Mapping[str, ExecutedOp], config: QuantConfig, why_left_out: Callable[[str], str]
) -> dict[str, ExecutedOp]:
    """Say of the ops that could not be quantized as asked why that is.

    Args:
        executed:
            What runs for each op.
        config:
            What was asked for.
        why_left_out:
            Gives the reason of an op; empty if there is none.
    """
    return {
        op: replace(found, note=why_left_out(op))
        if config.ops[op].is_quantized and not found.integer and why_left_out(op)
        else found
        for op, found in executed.items()
    }
