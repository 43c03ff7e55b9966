"""The work of a trial: build the model, evaluate it unless that was done, judge it.

May import: `pruners` and what is below it.
"""
