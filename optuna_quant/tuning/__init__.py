"""The whole search in one call: it combines the other packages.

May import: `callbacks` and what is below it.
"""
