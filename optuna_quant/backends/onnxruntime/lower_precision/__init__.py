"""Floats of 16 bits: ops that compute in them, and weights that are stored in them.

May import: `backends.onnxruntime.dynamic` and what is below it.
"""
