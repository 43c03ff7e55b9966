"""A Python program in a process that was forked, see :mod:`zygote`."""

from __future__ import annotations

import os
from pathlib import Path
import runpy
import signal
import sys


def on_one_core() -> None:
    """Leave the other cores to others.

    With two, threads of ONNX Runtime wait for each other by spinning, and where the cores have
    other work a program takes up to eight times as much of them.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def run(program: str, args: list[str], folder: str) -> None:
    """Do what ``python PROGRAM ARGS`` does in a folder."""
    signal.alarm(600)
    if hasattr(os, "sched_setaffinity"):
        on_one_core()
    os.chdir(folder)
    sys.argv = [program, *args]
    sys.path[0] = str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")
