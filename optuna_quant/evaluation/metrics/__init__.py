"""Metrics of a model's output, per sample and of a whole set.

May import: as `evaluation`.
"""
