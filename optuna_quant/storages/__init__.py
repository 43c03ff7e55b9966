"""Open storages, and make them fit for many workers: retries, locks, bulk writes.

May import: `workers` and what is below it.
"""

from __future__ import annotations

from optuna_quant.storages.open import open_storage


__all__ = ["open_storage"]
