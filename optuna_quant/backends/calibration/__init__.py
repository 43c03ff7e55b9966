"""Calibration data and what one pass over them learns of tensors, without a runtime.

May import: `backends.ranges` and what is below it.
"""
