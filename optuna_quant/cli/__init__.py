"""The command `optuna-quant`.

May import: every room.
"""
