"""The calibration of a variant: what its recipes have decided by the data, and its ranges."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.sealed_bytes import array_bytes
from optuna_quant._common.sealed_bytes import seal
from optuna_quant._common.sealed_bytes import unseal
from optuna_quant.backends.onnxruntime.recipes.variants import variant_key


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.candidate_ranges import CandidateRanges
    from optuna_quant.backends.onnxruntime.recipes.variants import Decisions
    from optuna_quant.backends.onnxruntime.recipes.variants import Variants
    from optuna_quant.space.config import QuantConfig


_MARK = b"optuna_quant variant 1\n"


class VariantCalibration:
    """Calibrates the variant of a configuration, for this process and for others.

    That of the user's graph has the key and the bytes of its ranges. Any other has a key that is
    known before a recipe has looked at the data.

    Args:
        variants:
            Gives the variants.
        config:
            The configuration.
    """

    def __init__(self, variants: Variants, config: QuantConfig) -> None:
        self._variants = variants
        self._config = config

    def is_collected(self) -> bool:
        """Whether :meth:`collect` has nothing to compute."""
        return self._variants.is_decided(self._config) and self._ranges.is_collected()

    def collect(self) -> None:
        """Collect what candidates are likely to need."""
        self._ranges.collect()

    def key(self) -> str:
        """A hash of all that it depends on."""
        key = self._variants.base.ranges.key()
        recipes = variant_key(self._config)
        return hashlib.sha256(f"{key} {recipes}".encode()).hexdigest() if recipes else key

    def dump(self) -> bytes:
        """What was collected, for :meth:`restore`."""
        ranges = self._ranges.dump()
        if not variant_key(self._config):
            return ranges
        return _packed(self.key(), self._variants.decisions(self._config), ranges)

    def restore(self, data: bytes) -> None:
        """Take what :meth:`dump` has given for the same :meth:`key`.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another model, other data or other recipes.
        """
        if variant_key(self._config):
            decisions, data = _unpacked(data, self.key())
            self._variants.decide(self._config, decisions)
        self._ranges.restore(data)

    @property
    def _ranges(self) -> CandidateRanges:
        return self._variants.of(self._config).ranges


def _packed(key: str, decisions: Decisions, ranges: bytes) -> bytes:
    arrays: dict[str, NDArray[Any]] = {
        "key": np.frombuffer(key.encode(), np.uint8),
        "counts": np.array([len(each) for each in decisions], np.int64),
        "ranges": np.frombuffer(ranges, np.uint8),
    }
    for i, each in enumerate(decisions):
        arrays |= {f"{i}:{j}": array for j, array in enumerate(each)}
    return seal(_MARK, array_bytes(arrays))


def _unpacked(data: bytes, key: str) -> tuple[Decisions, bytes]:
    content = unseal(_MARK, data, what="calibration statistics of a variant")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        if file["key"].tobytes().decode() != key:
            raise ValueError("These are the statistics of another model, data or recipes.")
        decisions = [
            [file[f"{i}:{j}"] for j in range(count)] for i, count in enumerate(file["counts"])
        ]
        return decisions, file["ranges"].tobytes()
