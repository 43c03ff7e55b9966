"""The ONNX graph: reading, normal form, folding, files, and the model that is handed out.

May import: `backends.torch_program` and what is below it.
"""
