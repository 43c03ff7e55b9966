"""The quantized weights of a graph, each computed once."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
import uuid
import warnings

import numpy as np

from optuna_quant.backends.onnxruntime.weight_only.algorithms.quantize import ALGORITHM_VERSIONS
from optuna_quant.backends.onnxruntime.weight_only.algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.onnxruntime.weight_only.algorithms.quantize import quantize_grouped
from optuna_quant.backends.onnxruntime.weight_only.packing import PackedWeight
from optuna_quant.backends.onnxruntime.weight_only.packing import packed_weight


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.weights import BoundedCache
    from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.space.config import TensorConfig


_FORMAT_VERSION = 1
_EXPENSIVE = NEEDS_INPUTS | {"hqq", "hqq_float"}
"""Algorithms whose results are kept on disk too."""


class GroupedWeights:
    """Gives the weights of ops, quantized in groups.

    Args:
        graph:
            The graph.
        cache:
            Where they are kept.
        inputs:
            Gives what some algorithms need of the ops' inputs; None without calibration data.
        directory:
            Where those that take long to compute are kept on disk; None for nowhere.
    """

    def __init__(
        self,
        graph: Graph,
        cache: BoundedCache,
        inputs: InputMomentsSource | None = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._graph = graph
        self._cache = cache
        self._inputs = inputs
        self._directory = None if directory is None else Path(directory)

    def get(self, op: WeightOnlyOp, config: TensorConfig, size: int | None) -> PackedWeight:
        """The weight of an op.

        Args:
            op:
                The op.
            config:
                How it is quantized.
            size:
                The calibration sampling size; None for all samples. It matters to the algorithms
                that look at the inputs only.

        Raises:
            UnusableInputsError:
                If the algorithm needs inputs, and the op has none that it can use.
            ValueError:
                If it needs inputs, and there are no calibration data.
        """
        key: tuple[object, ...] = (
            *("weight_only", op.weight, op.transposed, op.is_table, config),
            (op.activation, size) if config.algorithm in NEEDS_INPUTS else None,
        )
        if key not in self._cache:
            self._cache[key] = self._computed(op, config, size)
        found: PackedWeight = self._cache[key]
        return found

    def _computed(self, op: WeightOnlyOp, config: TensorConfig, size: int | None) -> PackedWeight:
        array = self._graph.array(op.weight)
        path = self._path(op, config, size, array)
        found = None if path is None else _load(path)
        if found is not None:
            return found
        needs_inputs = config.algorithm in NEEDS_INPUTS
        grouped = quantize_grouped(
            array.T if op.transposed else array,
            bits=config.bits,
            group_size=config.group_size,
            scheme=config.scheme,  # type: ignore[arg-type]
            algorithm=config.algorithm,
            moments=self._source(op, config).get(op, size) if needs_inputs else None,
        )
        weight = packed_weight(op, grouped, config.group_size)
        if path is not None:
            _store(path, weight)
        return weight

    def _source(self, op: WeightOnlyOp, config: TensorConfig) -> InputMomentsSource:
        if self._inputs is None:
            raise ValueError(
                f"Op {op.name!r} cannot be quantized with {config.algorithm!r}: that needs "
                "calibration_data, but the backend has none."
            )
        return self._inputs

    def _path(
        self, op: WeightOnlyOp, config: TensorConfig, size: int | None, array: NDArray[Any]
    ) -> Path | None:
        if self._directory is None or config.algorithm not in _EXPENSIVE:
            return None
        digest = hashlib.sha256(np.ascontiguousarray(array).data)
        versions = _FORMAT_VERSION, ALGORITHM_VERSIONS[config.algorithm]
        parts = [*versions, array.shape, op.transposed, op.is_table, config.label]
        if config.algorithm in NEEDS_INPUTS:
            parts += [op.activation, self._source(op, config).key_of(size)]
        digest.update(repr(parts).encode())
        return self._directory / f"weight-{digest.hexdigest()}.npz"


def _load(path: Path) -> PackedWeight | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return PackedWeight(
                arrays["codes"],
                arrays["scales"],
                arrays.get("zero_points"),
                arrays.get("input_scale"),
                int(arrays["bits"]),
                int(arrays["block_size"]),
            )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file fails in many ways, all of them here
        warnings.warn(
            f"The file {path} of a quantized weight cannot be read ({error}); quantizing again.",
            stacklevel=2,
        )
        return None


def _store(path: Path, weight: PackedWeight) -> None:
    """Keep a weight. A failure to write is only a warning."""
    arrays: dict[str, Any] = {
        **weight.arrays,
        "bits": weight.bits,
        "block_size": weight.block_size,
    }
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            np.savez(file, **arrays)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        warnings.warn(f"A quantized weight cannot be stored in {path}: {error}", stacklevel=2)
