"""The options of a search: each is declared once, for Python, command and files.

May import: as `tuning`.
"""
