"""Opening storages, and making them fit for many workers: retries, locks, writes in bulk.

May import: the rooms above and `workers`.
"""
