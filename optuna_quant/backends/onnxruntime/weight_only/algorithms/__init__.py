"""How weights are quantized in groups: pure NumPy, without a model or a runtime.

May import: as `backends.onnxruntime.weight_only`.
"""
