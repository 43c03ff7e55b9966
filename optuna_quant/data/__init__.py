"""Samples: the forms in which people have them, one by one or in batches. No model, no metric.

May import: `sequential` and what is below it.
"""
