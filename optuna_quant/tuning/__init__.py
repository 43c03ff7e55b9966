"""The whole search in one call: it combines the other packages.

May import: every room but `cli`.
"""
