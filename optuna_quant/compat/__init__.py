"""Reading what users of other tools have.

May import: `visualization` and what is below it.
"""
