"""The processes and threads that share a study: who they are, how many cores they have, how they
pause.

May import: `_common`, `_optuna`.
"""
