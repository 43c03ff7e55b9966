"""Find the rank of this process among those that a launcher started together.

``mpirun``, ``mpiexec`` and ``srun`` tell each process its rank in environment variables. Nothing
else of MPI is needed: the processes share a study, and do not talk to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import os


__all__ = ["Rank", "this_rank"]

RANK = "OPTUNA_QUANT_RANK"
RANKS = "OPTUNA_QUANT_RANKS"
LAUNCH = "OPTUNA_QUANT_LAUNCH"


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of a process among those that were started together.

    Attributes:
        number:
            Its rank, from 0.
        size:
            The number of processes.
        on_several_machines:
            Whether some of the processes are known to run on another machine.
        launch:
            What tells this start from another one, the same in all its processes; :obj:`None` if
            the launcher gives nothing of the kind.
    """

    number: int = 0
    size: int = 1
    on_several_machines: bool = False
    launch: str | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process reports and writes the output; the others only work."""
        return self.number == 0

    @property
    def is_alone(self) -> bool:
        """Whether no other process was started with it."""
        return self.size == 1

    def __str__(self) -> str:
        """Which one of how many, for people."""
        return f"rank {self.number} of {self.size}"


@dataclass(frozen=True, kw_only=True)
class _Launcher:
    """The environment variables of a launcher.

    Args:
        rank:
            The one that has the rank.
        size:
            The one that has the number of processes.
        local_size:
            The one that has the number of processes on this machine.
        machines:
            The one that has the number of machines.
        launch:
            Those that together tell one start from another.
    """

    rank: str
    size: str
    local_size: str = ""
    machines: str = ""
    launch: tuple[str, ...] = ()


# The first whose rank and size are both there counts: mpirun may itself run in a step of Slurm. Of
# Slurm, what only a step has is read: a batch script, which is one process, has SLURM_NTASKS too.
_LAUNCHERS = (
    _Launcher(rank=RANK, size=RANKS, launch=(LAUNCH,)),
    _Launcher(
        rank="OMPI_COMM_WORLD_RANK",
        size="OMPI_COMM_WORLD_SIZE",
        local_size="OMPI_COMM_WORLD_LOCAL_SIZE",
        # The first is made from a process number, which comes again in a new container; the
        # second, which has a port, is not known to all versions.
        launch=("PMIX_NAMESPACE", "OMPI_MCA_orte_hnp_uri"),
    ),
    _Launcher(
        rank="MV2_COMM_WORLD_RANK",
        size="MV2_COMM_WORLD_SIZE",
        local_size="MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    _Launcher(
        rank="PMI_RANK",
        size="PMI_SIZE",
        local_size="MPI_LOCALNRANKS",
        launch=("PALS_APID", "PMI_JOBID"),
    ),
    _Launcher(
        rank="SLURM_PROCID",
        size="SLURM_STEP_NUM_TASKS",
        machines="SLURM_STEP_NUM_NODES",
        launch=("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ),
)


def this_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """The rank of this process, from what its launcher has put into the environment.

    Known are Open MPI, MPICH, Intel MPI, MVAPICH and Slurm's ``srun``. For other launchers, or to
    say that processes have nothing to do with each other (``OPTUNA_QUANT_RANKS=1``), there are
    the variables ``OPTUNA_QUANT_RANK`` and ``OPTUNA_QUANT_RANKS``, which go before the others.
    ``OPTUNA_QUANT_LAUNCH`` tells one start from another, for launchers that do not (MPICH).

    Args:
        environment:
            The environment variables. Default: those of the process.

    Returns:
        The rank; that of a process on its own if there is no launcher.

    Raises:
        ValueError:
            If a variable does not have a number, or the rank is not less than their count.
    """
    given = os.environ if environment is None else environment
    if given.get(RANKS, "").strip() == "1":
        return Rank()
    for launcher in _LAUNCHERS:
        if launcher.rank in given and launcher.size in given:
            return _rank(launcher, given)
    if RANK in given or RANKS in given:
        there, missing = (RANK, RANKS) if RANK in given else (RANKS, RANK)
        raise ValueError(f"{there}={given[there]!r} is set, but {missing} is not: set both.")
    return Rank()


def _rank(launcher: _Launcher, given: Mapping[str, str]) -> Rank:
    number, size = _number(launcher.rank, given), _number(launcher.size, given)
    if number >= size:
        raise ValueError(
            f"{launcher.rank}={number} must be less than {launcher.size}={size}: ranks start at 0."
        )
    several = False
    if launcher.local_size in given:
        several = _number(launcher.local_size, given) < size
    elif launcher.machines in given:
        several = _number(launcher.machines, given) > 1
    # What the user says goes for every launcher: some give nothing of the kind.
    names = (LAUNCH,) if given.get(LAUNCH) else launcher.launch
    marks = [given[name] for name in names if given.get(name)]
    return Rank(
        number=number,
        size=size,
        on_several_machines=several,
        launch=" ".join(marks) or None,
    )


def _number(name: str, given: Mapping[str, str]) -> int:
    try:
        value = int(given[name])
    except ValueError:
        value = -1
    if value < 0:
        raise ValueError(
            f"The environment variable {name} must be a number of at least 0, but is "
            f"{given[name]!r}. To run without a launcher set {RANKS}=1."
        )
    return value
