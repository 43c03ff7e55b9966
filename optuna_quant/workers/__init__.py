"""The processes and threads that share a study: identity, launchers, cores, heartbeats,
backoff.

May import: `_optuna` and what is below it.
"""
