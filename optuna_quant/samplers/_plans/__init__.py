"""Building blocks of staged strategies: fallback in an order, by halves, by op type.

May import: `samplers._engine` and what is below it.
"""
