"""Tunes the digits model with the workers of a Dask cluster.

The study is kept on Dask's scheduler, or in a database that the scheduler reaches; the workers
need nothing but Dask. Without --scheduler, a cluster of processes is started on this machine::

    python examples/distributed/dask_workers.py --workers 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distributed import Client
from distributed import LocalCluster
from distributed import get_worker
import optuna
from optuna_integration.dask import DaskStorage

import optuna_quant
from optuna_quant.storages.open import open_storage


DIGITS = Path(__file__).resolve().parents[1] / "digits"
STUDY = "digits"


def work(model: bytes, storage: DaskStorage, max_trials: int) -> tuple[str, str]:
    """Take part in the search; runs on a worker, in a process of its own."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result = optuna_quant.tune(
        model,
        calibration_data=DIGITS / "calib.npz",
        data=DIGITS / "eval.npz",
        tolerable_loss=0.01,
        max_trials=max_trials,
        storage=storage,
        study_name=STUDY,
        measure_gain=False,  # Each would measure while the others do.
    )
    return get_worker().address, str(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheduler", help="the address of a scheduler, such as tcp://host:8786")
    parser.add_argument("--workers", type=int, default=4, help="of the cluster that is started")
    parser.add_argument("--storage", help="a database, for a study that outlives the scheduler")
    parser.add_argument("--max-trials", type=int, default=100)
    args = parser.parse_args()
    cluster = args.scheduler or LocalCluster(
        n_workers=args.workers, threads_per_worker=1, dashboard_address=None
    )
    with Client(cluster) as client:
        storage = DaskStorage(open_storage(args.storage), name=STUDY)
        model = (DIGITS / "model.onnx").read_bytes()
        # One task for each worker, each on its own: Dask would take equal calls for one.
        tasks = [
            client.submit(
                work,
                model,
                storage,
                args.max_trials,
                workers=[address],
                allow_other_workers=True,  # If this one dies.
                pure=False,
            )
            for address in client.scheduler_info(n_workers=-1)["workers"]
        ]
        workers, answers = zip(*client.gather(tasks), strict=True)
        print(f"workers: {len(set(workers))}, different answers: {len(set(answers))}")
        print(*dict.fromkeys(answers), sep="\n")
    if args.scheduler is None:
        cluster.close()


if __name__ == "__main__":
    main()
