"""The whole search in one call: it puts the other rooms together.

May import: every room but `cli`.
"""
