"""The quantized weights of a graph, each computed once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.weight_only.kept_weights import KeptWeights
from optuna_quant.backends.onnxruntime.weight_only.packing import PackedWeight
from optuna_quant.backends.onnxruntime.weight_only.packing import packed_nbytes
from optuna_quant.backends.onnxruntime.weight_only.packing import packed_weight
from optuna_quant.backends.weight_algorithms.moments import InputMoments
from optuna_quant.backends.weight_algorithms.quantize import ALGORITHM_VERSIONS
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant._common.bounded_cache import BoundedCache
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.space.config import TensorConfig


_FORMAT_VERSION = 1
_EXPENSIVE = NEEDS_INPUTS | {"hqq", "hqq_float"}
"""Algorithms whose results are kept beside this process's memory too."""


class GroupedWeights:
    """Gives the weights of ops, quantized in groups.

    A weight that several ops read is quantized once, for the inputs of all of them.

    Args:
        graph:
            The graph.
        ops:
            All ops whose weights may be asked for.
        cache:
            Where they are kept.
        inputs:
            Gives what some algorithms need of the ops' inputs; None without calibration data.
        kept:
            Keeps those that take long to compute on disk, or for other workers.
    """

    def __init__(
        self,
        graph: Graph,
        ops: Iterable[WeightOnlyOp],
        cache: BoundedCache,
        inputs: InputMomentsSource | None = None,
        kept: KeptWeights | None = None,
    ) -> None:
        self._graph = graph
        self._readers: dict[object, list[WeightOnlyOp]] = {}
        for op in ops:
            self._readers.setdefault(_weight_of(op), []).append(op)
        self._cache = cache
        self._inputs = inputs
        self._kept = KeptWeights() if kept is None else kept

    def readers(self, op: WeightOnlyOp) -> tuple[WeightOnlyOp, ...]:
        """The ops that read the same weight in the same way, the first for each input."""
        found = {each.activation: each for each in reversed(self._readers[_weight_of(op)])}
        return tuple(reversed(found.values()))

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
            *("weight_only", *_weight_of(op), config),
            size if config.algorithm in NEEDS_INPUTS else None,
        )
        if key not in self._cache:
            self._cache[key] = self._computed(op, config, size)
        found: PackedWeight = self._cache[key]
        return found

    def _computed(self, op: WeightOnlyOp, config: TensorConfig, size: int | None) -> PackedWeight:
        array = self._graph.array(op.weight)

        def compute() -> PackedWeight:
            needs_inputs = config.algorithm in NEEDS_INPUTS
            grouped = quantize_grouped(
                array.T if op.transposed else array,
                bits=config.bits,
                group_size=config.group_size,
                scheme=config.scheme,  # type: ignore[arg-type]
                algorithm=config.algorithm,
                moments=self._moments(op, config, size) if needs_inputs else None,
            )
            return packed_weight(op, grouped, config.group_size)

        if config.algorithm not in _EXPENSIVE or not self._kept.is_used:
            return compute()
        nbytes = packed_nbytes(op, config.bits, config.group_size)
        return self._kept.get(self._key(op, config, size, array), compute, nbytes=nbytes)

    def _moments(self, op: WeightOnlyOp, config: TensorConfig, size: int | None) -> InputMoments:
        source, readers = self._source(op, config), self.readers(op)
        source.expect(readers)
        if len(readers) == 1:
            return source.get(op, size)
        found = InputMoments(op.inputs)
        for reader in readers:
            found.merge(source.get(reader, size))
        return found

    def _source(self, op: WeightOnlyOp, config: TensorConfig) -> InputMomentsSource:
        if self._inputs is None:
            raise ValueError(
                f"Op {op.name!r} cannot be quantized with {config.algorithm!r}: that needs "
                "calibration_data, but the backend has none."
            )
        return self._inputs

    def _key(
        self, op: WeightOnlyOp, config: TensorConfig, size: int | None, array: NDArray[Any]
    ) -> str:
        """A hash of all that a weight depends on."""
        digest = hashlib.sha256(np.ascontiguousarray(array).data)
        versions = _FORMAT_VERSION, ALGORITHM_VERSIONS[config.algorithm]
        parts = [*versions, array.shape, op.transposed, op.is_table, config.label]
        if config.algorithm in NEEDS_INPUTS:
            parts += [each.activation for each in self.readers(op)]
            parts += [self._source(op, config).key_of(size)]
        digest.update(repr(parts).encode())
        return digest.hexdigest()


def _weight_of(op: WeightOnlyOp) -> tuple[str, bool, bool]:
    """A weight, and how it is read."""
    return op.weight, op.transposed, op.is_table
