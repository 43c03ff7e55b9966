"""What exporters note in a model for debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import onnx


_PREFIXES = ("pkg.torch.", "pkg.onnxscript.")
_NAMESPACE = "namespace"


def without_exporter_notes(proto: onnx.ModelProto) -> None:
    """Remove what PyTorch's exporter notes of each node, in place.

    They are stack traces, with paths and lines of the user's code, and can be a third of a small
    model. What others note is kept.

    Args:
        proto:
            The model.
    """
    graph = proto.graph
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for holder in (proto, graph, *graph.node, *values):
        notes = holder.metadata_props
        if not any(note.key.startswith(_PREFIXES) for note in notes):
            continue
        kept = [n for n in notes if not n.key.startswith(_PREFIXES) and n.key != _NAMESPACE]
        copies = [(note.key, note.value) for note in kept]
        del notes[:]
        for key, value in copies:
            notes.add(key=key, value=value)
