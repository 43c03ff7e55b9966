"""What makes up for the rounding of weights.

May import: as `backends.onnxruntime.static`.
"""
