"""The ONNX graph: reading, normal form, folding, files, and the model that is handed out.

May import: `backends.onnxruntime.ranges` and what is below it.
"""
