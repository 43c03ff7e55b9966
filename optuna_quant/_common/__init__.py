"""Small things that any room may use: texts, files, the version.

May import: nothing of this package.
"""
