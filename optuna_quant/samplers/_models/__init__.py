"""The models behind model-based strategies, and the policies that act on them.

May import: `samplers._plans` and what is below it.
"""
