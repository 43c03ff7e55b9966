"""Shared by all strategies: Optuna's contract, claims, a sampler's view of the record, replay.

May import: nothing else of the samplers.
"""
