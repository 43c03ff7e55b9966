"""What the configurations of an ONNX model cost on this machine.

May import: `backends.onnxruntime.sensitivity` and what is below it.
"""
