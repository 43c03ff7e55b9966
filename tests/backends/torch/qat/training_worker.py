"""A search with training, in a process that may be killed in the middle of it."""

from __future__ import annotations

import os
from pathlib import Path
import signal

from backends.torch.qat.digits_net import accuracy
from backends.torch.qat.digits_net import digits
from backends.torch.qat.digits_net import one_epoch
from backends.torch.qat.digits_net import trained_net
import optuna
import torch
from torch import nn

import optuna_quant
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import TrainingRun


EPOCHS = 4


def train(model: nn.Module, run: TrainingRun) -> None:
    lr = run.trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    first = 0
    checkpoint = run.resume()
    if checkpoint is not None:
        model.load_state_dict(checkpoint.state["model"])
        optimizer.load_state_dict(checkpoint.state["optimizer"])
        first = checkpoint.step + 1
    for epoch in range(first, EPOCHS):
        _log(f"{epoch} {lr!r}")
        one_epoch(model, optimizer)
        run.report(accuracy(model), epoch)
        run.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, epoch)
        if os.environ.get("KILL_AFTER") == str(epoch):
            os.kill(os.getpid(), signal.SIGKILL)


def _log(line: str) -> None:
    with Path(os.environ["EPOCHS_LOG"]).open("a") as file:
        file.write(f"{line}\n")


def work(folder: str, seed: int, kill_after: int | None = None) -> None:
    """Search, and write the fingerprint of the answer."""
    torch.set_num_threads(1)
    place = Path(folder)
    os.environ["EPOCHS_LOG"] = str(place / "epochs")
    os.environ.pop("KILL_AFTER", None)
    if kill_after is not None:
        os.environ["KILL_AFTER"] = str(kill_after)
    (place / "artifacts").mkdir(exist_ok=True)
    x, *_ = digits()
    backend = TorchBackend(
        trained_net(2), x[:2], calibration_data=x[:100].numpy(), approach="qat", train=train
    )
    result = optuna_quant.tune(
        backend=backend,
        evaluate=accuracy,
        tolerable_loss=0.5,
        strategy="basic",
        objective="size",
        max_trials=1,
        storage=str(place / "study.journal"),
        study_name="digits",
        artifact_store=optuna.artifacts.FileSystemArtifactStore(place / "artifacts"),
        show_progress=False,
        seed=seed,
    )
    assert result.trial is not None
    (place / "answer").write_text(f"{result.trial.params['lr']!r} {result.model().fingerprint}")
