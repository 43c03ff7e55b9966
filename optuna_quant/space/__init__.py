"""How a model can be quantized: configurations, and the tuning space of Optuna distributions.

May import: `storages` and what is below it.
"""
