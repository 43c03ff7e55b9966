"""Opening storages, and making them fit for many workers: retries, locks, writes in bulk.

May import: the rooms above and `workers`.
"""

from __future__ import annotations

from optuna_quant.storages.open import open_storage


__all__ = ["open_storage"]
