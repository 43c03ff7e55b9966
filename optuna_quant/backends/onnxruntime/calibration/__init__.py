"""One pass over the calibration data, from which every range is computed.

May import: `backends.onnxruntime.executed` and what is below it.
"""
