"""The machine that costs hold for, in words."""

from __future__ import annotations

from pathlib import Path
import platform
import re

from optuna_quant.workers.cores import available_cores


def machine_conditions() -> dict[str, str]:
    """The machine and its processor, for the conditions of costs."""
    cores = available_cores()
    return {
        "machine": f"{platform.machine()}, {cores} core{'' if cores == 1 else 's'}",
        "processor": _processor(),
    }


def _processor() -> str:
    """The kind of processor, as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^(?:model name|Processor|CPU part)\s*:\s*(.+)$", text, re.MULTILINE)
    return platform.processor() if found is None else found[1].strip()
