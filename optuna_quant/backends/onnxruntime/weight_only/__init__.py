"""Weight-only quantization: weights of 2 to 8 bits in groups, activations in floats.

May import: `backends.onnxruntime.static` and what is below it.
"""
