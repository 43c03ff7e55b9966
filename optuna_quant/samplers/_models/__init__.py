"""What model-based strategies believe of configurations, and the policies that act on it.

May import: `_engine`.
"""
