"""Shared by all strategies: Optuna's contract, claims, a sampler's view of the record, replay.

May import: `backends.default` and what is below it.
"""
