"""Static quantization: where Q/DQ pairs go, and writing them.

May import: `backends.onnxruntime.lower_precision` and what is below it.
"""
