"""Cross-layer equalization.

May import: as `backends.onnxruntime.recipes`.
"""
