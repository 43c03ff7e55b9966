"""Where a process that a test starts finds its modules."""

from __future__ import annotations

import os
from pathlib import Path


def python_path(first: Path) -> str:
    """PYTHONPATH with a folder before all that this process was given."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(first), *([given] if given else [])])
