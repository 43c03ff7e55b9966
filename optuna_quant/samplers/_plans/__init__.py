"""Building blocks of staged strategies: fallback in an order, by halves, by op type.

May import: `_engine`.
"""
