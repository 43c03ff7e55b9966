"""The work of a trial: build the model, evaluate it unless that was done, judge it.

May import: all but `callbacks`, `tuning`, and `cli`; of backends `base` alone.
"""
