"""What a file is that should be a model and is none."""

from __future__ import annotations


_OF_TORCH = frozenset({"Module", "ExportedProgram"})

_POINTER = b"version https://git-lfs"
_KERAS_WEIGHTS = b"model.weights.h5"
_KERAS_EXPORT = 'model.export("model.onnx", format="onnx")'
_SAVED_MODEL = b"saved_model_main_op"


def is_lfs_pointer(content: bytes) -> bool:
    """Whether content is what Git LFS puts in the place of a large file."""
    return content.startswith(_POINTER)


def what_it_is(content: bytes) -> str:
    """What content that is no ONNX model is, and what to do, for the end of a sentence."""
    start = content[:64].lstrip()
    if not content:
        return "it is empty; export or download it again"
    if is_lfs_pointer(content):
        return "it is a Git LFS pointer, not the model; run: git lfs pull"
    if content[4:8] == b"ORTM":
        return "it is in the ORT format; give the .onnx file that it was made from"
    if content[4:8] == b"TFL3":
        return "it is a TensorFlow Lite model; convert it, for example with tf2onnx"
    if content.startswith(b"PK") and _KERAS_WEIGHTS in content:
        return f"it is a Keras model; export it with {_KERAS_EXPORT}"
    if content.startswith(b"PK"):
        return (
            "it is a zip archive, such as a PyTorch checkpoint; export the model with "
            "torch.onnx.export, or unpack it"
        )
    if content.startswith(b"\x89HDF"):
        return f"it is an HDF5 file, such as a Keras model; export that with {_KERAS_EXPORT}"
    if _SAVED_MODEL in content:
        return (
            "it is a TensorFlow SavedModel; convert its folder with python -m tf2onnx.convert "
            "--saved-model FOLDER --output model.onnx"
        )
    if content.startswith(b"\x80") and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "it is a Python pickle; export the model with torch.onnx.export"
    if start.startswith((b"<", b"{")):
        return "it is text (HTML, XML or JSON), perhaps an error page; download it again"
    return "it is another kind of file, or is damaged or truncated; export or copy it again"


def what_to_do_with(model: object) -> str:
    """What to do with an object that is no ONNX model, as a sentence."""
    # torch itself is not imported for a message.
    for kind in type(model).__mro__:
        if kind.__module__.partition(".")[0] == "torch" and kind.__name__ in _OF_TORCH:
            return (
                "It is a model of PyTorch: export it with torch.onnx.export, after model.eval(), "
                "and give the .onnx file."
            )
    return "For a model of another runtime give backend=."
