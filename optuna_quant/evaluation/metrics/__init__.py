"""What a model's output is worth: metrics by sample and of a whole set.

May import: as `evaluation`.
"""
