"""Where tests and the files that they use are."""

from __future__ import annotations

from pathlib import Path


TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
