"""What a study holds and how workers share it: the record, heartbeats, values computed once.

May import: `backends.base` and what is below it.
"""
