"""Small things that any room may use: strings, files, the version.

May import: nothing of this package.
"""
