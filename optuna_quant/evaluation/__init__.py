"""What one trial does: build the model, evaluate it unless that was done, judge it.

May import: all but `callbacks`, `tuning`, and `cli`; of backends `base` alone.
"""
