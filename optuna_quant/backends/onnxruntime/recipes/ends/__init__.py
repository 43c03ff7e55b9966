"""The ends of a model in FP32: its first and last product, and what lies outside them.

May import: as `backends.onnxruntime.recipes`.
"""
