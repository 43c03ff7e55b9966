"""Fingerprints of candidates, which hash what they have in common once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.compact import missing_digests
from optuna_quant.backends.onnxruntime.model.fingerprint import fingerprint
from optuna_quant.backends.onnxruntime.model.fingerprint import typed_digest


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from optuna_quant.backends.onnxruntime.model.compact import CompactModel
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.static.written import WrittenGraph


class CandidateFingerprints:
    """Gives the fingerprints of models that are written from one graph.

    Args:
        graph:
            The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._digests: dict[str, bytes] = {}

    def of_original(self, proto: onnx.ModelProto, base_dir: Path | None) -> str:
        """The fingerprint of the user's model, most of whose initializers candidates have too.

        Args:
            proto:
                The model.
            base_dir:
                Where its external data are; None if it has none.
        """
        same = [tensor.name for tensor in proto.graph.initializer if self._is_own(tensor)]
        known = {name: self._digests[name] for name in same if name in self._digests}
        result = fingerprint(proto, base_dir=base_dir, known=known)
        self._digests.update((name, known[name]) for name in same)
        return result

    def _is_own(self, tensor: onnx.TensorProto) -> bool:
        return self._graph.initializers.get(tensor.name) is tensor

    def of_candidate(
        self,
        model: CompactModel,
        written: WrittenGraph,
        digests: Mapping[str, bytes],
        *,
        repeated_pairs: int,
    ) -> str:
        """The fingerprint of a candidate.

        Args:
            model:
                The candidate.
            written:
                What it was made of.
            digests:
                The digests of tensors that were added since, by name, as far as they are known.
            repeated_pairs:
                How many of its Q/DQ pairs are the same as another one.
        """
        known = {**self._digests, **digests}
        for name, digest in written.digests.items():
            array = written.constants[name]
            data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            known[name] = typed_digest(digest, data_type, array.shape)
        known.update(missing_digests(model.outside, known))
        found = fingerprint(model.proto, base_dir=self._graph.base_dir, known=known)
        # New tensors have other names in every candidate; those of the graph keep theirs.
        own = self._graph.initializers
        self._digests.update((name, digest) for name, digest in known.items() if name in own)
        if not repeated_pairs:
            return found
        # To a fingerprint, which looks at values alone, the pairs are one.
        text = f"{found} with {repeated_pairs} pairs more"
        return hashlib.sha256(text.encode()).hexdigest()[: len(found)]
