"""Making the tables of what is counted."""

from __future__ import annotations

from dataclasses import dataclass
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger
import torch

from optuna_quant.backends.torch.costs.latency import latency_table
from optuna_quant.backends.torch.costs.operations import count_multiply_adds
from optuna_quant.backends.torch.costs.size import size_table
from optuna_quant.costs import Costs
from optuna_quant.costs.machine import machine_conditions
from optuna_quant.costs.operations import operation_tables


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_quant.backends.calibration.pieces import Piece
    from optuna_quant.backends.torch.converted.model import TorchModel
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.costs import CostTable
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class CostSource:
    """What costs are found with.

    Args:
        program:
            The program.
        float_bytes:
            The size of all its tensors in floats.
        piece:
            What it is run on; None if there are no data, so that operations are not known.
    """

    program: SwitchedProgram
    float_bytes: int
    piece: Piece | None


def count_costs(source: CostSource, space: TuningSpace) -> Costs:
    """The costs that need no measurement.

    Args:
        source:
            What costs are found with.
        space:
            The tuning space.
    """
    started = time.perf_counter()
    tables = counted_tables(source, space)
    return Costs(tables, conditions(source), None, time.perf_counter() - started)


def measure_costs(
    source: CostSource,
    space: TuningSpace,
    build: Callable[[QuantConfig], TorchModel],
    *,
    seconds: float,
) -> Costs:
    """The costs of configurations; their latency among them if there are data.

    Args:
        source:
            What costs are found with.
        space:
            The tuning space.
        build:
            Builds the model of a configuration.
        seconds:
            About how long models may run.
    """
    if source.piece is None:
        return count_costs(source, space)
    started = time.perf_counter()
    ops = {op.name: op for op in source.program.ops}
    latency = latency_table(space, ops, build, source.piece.feed, seconds=seconds)
    tables = {"latency": latency, **counted_tables(source, space)}
    taken = time.perf_counter() - started
    _logger.info(f"Measured what {len(latency.ops)} ops take in {taken:.1f} s.")
    return Costs(tables, conditions(source), None, taken)


def counted_tables(source: CostSource, space: TuningSpace) -> dict[str, CostTable]:
    """The tables of sizes and, if there are data, of operations for one sample, by measure.

    Args:
        source:
            What costs are found with.
        space:
            The tuning space.
    """
    ops = {op.name: op for op in source.program.ops}
    tables: list[CostTable] = [size_table(space, ops, source.float_bytes)]
    if source.piece is not None:
        counts = count_multiply_adds(source.program, source.piece.feed)
        of_sample = {name: count / source.piece.samples for name, count in counts.items()}
        tables += operation_tables(of_sample, space)
    return {table.measure: table for table in tables}


def conditions(source: CostSource) -> dict[str, str]:
    """Under which conditions costs hold, for people and to compare."""
    found = {
        "runtime": f"PyTorch {torch.__version__}",
        **machine_conditions(),
        "threads": str(torch.get_num_threads()),
    }
    if source.piece is not None:
        found["batch"] = str(source.piece.samples)
        found["inputs"] = ", ".join(
            f"{name} {'x'.join(map(str, array.shape))}"
            for name, array in source.piece.feed.items()
        )
    return found
