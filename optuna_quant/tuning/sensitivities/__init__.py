"""Sensitivities as a table that people read and edit.

May import: as `tuning`.
"""
