"""Dynamic quantization: operators that find their ranges as they run.

May import: `backends.onnxruntime.calibration` and what is below it.
"""
