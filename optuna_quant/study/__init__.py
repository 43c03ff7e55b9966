"""The record of a study and how workers share it: claims, heartbeats, values computed once.

May import: `backends.base` and what is below it.
"""
