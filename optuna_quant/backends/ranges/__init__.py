"""From histograms to scale and zero point.

May import: `selection` and what is below it.
"""
