"""Moving a factor per channel from one constant of a graph to another: its function stays.

May import: as `backends.onnxruntime.recipes`.
"""
