"""How weights are quantized in groups: pure NumPy, without a model or a runtime.

May import: `backends.calibration` and what is below it.
"""
