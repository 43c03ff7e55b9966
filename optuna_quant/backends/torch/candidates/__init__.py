"""From a configuration to a model: weights, ranges, and what is switched.

May import: `backends.torch.graph` and what is below it.
"""
