"""The moments of ops' inputs over the calibration data, which GPTQ and AWQ need."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
import hashlib
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.calibration.tapped_graph import TappedGraph
from optuna_quant.backends.onnxruntime.model.fingerprint import fingerprint
from optuna_quant.backends.onnxruntime.weight_only.moments_bytes import pack_moments
from optuna_quant.backends.onnxruntime.weight_only.moments_bytes import unpack_moments
from optuna_quant.backends.weight_algorithms.moments import InputMoments


if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp


_logger = get_logger(__name__)

_ALL = 1 << 62


class UnusableInputsError(ValueError):
    """The calibration data give an op inputs that say nothing about its weight."""


class InputMomentsSource:
    """Collects the moments of the inputs of ops, for all that are expected in one pass.

    Ops that read the same tensor share them. A tensor of ``n`` columns takes ``4 * n**2`` bytes
    for each sampling size.

    Args:
        graph:
            The graph.
        data:
            The calibration data; batches may differ in length.
        sessions:
            Says with which providers and options the model runs.
        sizes:
            The sampling sizes that candidates may ask for; None among them stands for all samples.
    """

    def __init__(
        self,
        graph: Graph,
        data: CalibrationData,
        sessions: SessionMaker,
        sizes: Iterable[int | None],
    ) -> None:
        self._graph = graph
        self._data = data
        self._sessions = sessions
        self._sizes = [size or _ALL for size in sizes]
        self._expected: dict[str, int] = {}
        self._found: dict[tuple[str, int], InputMoments] = {}
        self._unusable: dict[str, str] = {}
        self._data_keys: dict[int, str] = {}

    def expect(self, ops: Iterable[WeightOnlyOp]) -> None:
        """From now on collect for these ops as well, when any are asked for."""
        self._expected.update((op.activation, op.inputs) for op in ops if op.activation)

    def get(self, op: WeightOnlyOp, size: int | None) -> InputMoments:
        """The moments of an op's inputs.

        Args:
            op:
                The op.
            size:
                How many samples from the start of the data; None for all.

        Raises:
            UnusableInputsError:
                If they are not finite, or there are none.
        """
        self.expect([op])
        assert op.activation is not None
        place = op.activation, size or _ALL
        if place not in self._found and op.activation not in self._unusable:
            self._collect(dict.fromkeys([place[1], *self._sizes]))
        reason = self._unusable.get(op.activation)
        if reason is None and not self._found[place].count:
            reason = f"the calibration data give no values of the tensor {op.activation!r}"
        if reason is not None:
            raise UnusableInputsError(reason)
        return self._found[place]

    def is_collected(self) -> bool:
        """Whether the moments of all that is expected have been collected."""
        return not self._missing(self._sizes)

    def collect(self) -> None:
        """Collect the moments of all that is expected, in one pass."""
        if not self.is_collected():
            self._collect(self._sizes)

    def key(self) -> str:
        """A hash of all that the moments of all that is expected depend on."""
        parts = [self.key_of(size) for size in self._sizes]
        parts += [f"{name}:{inputs}" for name, inputs in sorted(self._expected.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def expected_bytes(self) -> int:
        """About how many bytes :meth:`dump` gives."""
        one = sum(2 * inputs * (inputs + 1) for inputs in self._expected.values())
        return one * len(self._sizes)

    def dump(self) -> bytes:
        """The moments of all that is expected, which have been collected, for :meth:`restore`."""
        found = {
            (name, size): self._found[name, size]
            for name in sorted(self._expected)
            for size in self._sizes
            if (name, size) in self._found and name not in self._unusable
        }
        unusable = {name: why for name, why in self._unusable.items() if name in self._expected}
        return pack_moments(self.key(), found, unusable)

    def restore(self, data: bytes) -> None:
        """Take what :meth:`dump` has given in another process.

        Raises:
            ValueError:
                If the bytes are damaged, or were made from another model or other data.
        """
        found, unusable = unpack_moments(data, self.key())
        self._found.update(found)
        self._unusable.update(unusable)

    def key_of(self, size: int | None) -> str:
        """A hash of all that the moments depend on: the model, and the data, which are read."""
        number = size or _ALL
        if number not in self._data_keys:
            numbers = dict.fromkeys([number, *self._sizes])
            self._data_keys.update(self._data.fingerprints(numbers))
        names = [name if isinstance(name, str) else name[0] for name in self._sessions.providers]
        parts = [self._model_key, self._data_keys[number], *names]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def _model_key(self) -> str:
        return fingerprint(self._graph.to_model(), base_dir=self._graph.base_dir)

    def _collect(self, sizes: Iterable[int]) -> None:
        sizes = list(sizes)
        missing = self._missing(sizes)
        started = time.perf_counter()
        moments = {name: InputMoments(inputs) for name, inputs in missing.items()}
        reached: set[int] = set()
        samples = 0
        with self._sessions.lock:
            tapped = TappedGraph(self._graph, missing, self._sessions)
            for piece in self._data.pieces(sizes):
                for name, values in tapped.values(piece.feed):
                    self._add(moments, name, values)
                samples += piece.samples
                for size in piece.reached:
                    reached.add(size)
                    self._found.update(((n, size), deepcopy(m)) for n, m in moments.items())
        for size in set(sizes) - reached:
            self._found.update(((name, size), each) for name, each in moments.items())
        _logger.info(
            f"Collected the moments of {len(missing)} tensors on {samples} samples in "
            f"{time.perf_counter() - started:.1f} s."
        )

    def _missing(self, sizes: Iterable[int]) -> dict[str, int]:
        """The tensors that have not been collected for all sizes, with their columns."""
        sizes = list(sizes)
        return {
            name: inputs
            for name, inputs in sorted(self._expected.items())
            if name not in self._unusable and any((name, s) not in self._found for s in sizes)
        }

    def _add(
        self, moments: dict[str, InputMoments], name: str, values: NDArray[np.float32]
    ) -> None:
        if name in self._unusable or not values.size:
            return
        try:
            moments[name].add(values)
        except ValueError as error:
            self._unusable[name] = f"of the tensor {name!r}: {error}"
