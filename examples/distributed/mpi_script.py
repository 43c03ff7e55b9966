"""Tunes the digits model from a script of one's own that a launcher starts several times.

On one machine a journal file is enough; on several, give a database::

    mpirun -np 4 python examples/distributed/mpi_script.py digits.journal
    srun -n 64 python examples/distributed/mpi_script.py postgresql://user:password@host/name

No MPI library is needed: the processes share the study, and the launcher only starts them.
"""

from __future__ import annotations

from pathlib import Path
import sys

import optuna

import optuna_quant
from optuna_quant.workers.launch import this_rank


DIGITS = Path(__file__).resolve().parents[1] / "digits"


def main(storage: str) -> None:
    rank = this_rank()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result = optuna_quant.tune(
        DIGITS / "model.onnx",
        calibration_data=DIGITS / "calib.npz",
        data=DIGITS / "eval.npz",
        tolerable_loss=0.01,
        storage=storage,
        study_name="digits",
        output="digits.int8.onnx",
    )
    # Every rank gets the result; the first one alone has shown the progress and written the file.
    if rank.is_leader:
        print(f"{rank}:")
        print(result)


if __name__ == "__main__":
    main(sys.argv[1])
