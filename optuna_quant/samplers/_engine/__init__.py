"""What all strategies share: Optuna's contract, claims, the record as a sampler sees it, replay.

May import: nothing else of the samplers.
"""
