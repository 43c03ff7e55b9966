"""Identify the process and thread that run a trial, and tell whether the process lives."""

from __future__ import annotations

from functools import lru_cache
import os
from pathlib import Path
import socket
import threading


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """When a process was started, in clock ticks since boot; empty if it is gone or unknown."""
    stat = _read(f"/proc/{pid}/stat")
    # The command, in parentheses, may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return "" if not fields or fields[0] in "ZX" else fields[19]


@lru_cache(maxsize=1)
def _host() -> str:
    """The machine, its boot and its process namespace: where a process number means something."""
    boot = _read("/proc/sys/kernel/random/boot_id").strip()
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    machine = _read("/etc/machine-id").strip()
    return f"{socket.gethostname()} {machine} {boot} {namespace}"


def _is_earlier_boot(host: str) -> bool:
    """Whether that was this very machine, before it was started again."""
    theirs, mine = host.split(" "), _host().split(" ")
    same_machine = theirs[:2] == mine[:2] and bool(mine[1])
    return len(theirs) == len(mine) and same_machine and theirs[2] != mine[2]


def this_worker() -> str:
    """This process and thread, as text that other processes can check."""
    return f"{_process(_host(), os.getpid())}|{threading.get_ident()}"


@lru_cache(maxsize=4)
def _process(host: str, pid: int) -> str:
    """This process; by its number, since a child process inherits what was found before."""
    return f"{host}|{pid}|{_start_time(pid)}"


def process_of(worker: str) -> str:
    """The process of a worker, whatever its thread."""
    return worker.rpartition("|")[0]


def host_of(worker: str) -> str:
    """The name of the machine of a worker, for people."""
    return worker.partition("|")[0].partition(" ")[0]


def is_this_process(worker: str) -> bool:
    """Whether a worker is this very process, whatever its thread."""
    return process_of(worker) == _process(_host(), os.getpid())


def is_known_dead(worker: str) -> bool:
    """Whether a worker's process is known to have ended.

    A process on this machine, in this process namespace, is looked up; one from before the
    machine was started again has ended. Of others this says :obj:`False`.
    """
    host, *numbers = worker.split("|")
    if host != _host():
        return _is_earlier_boot(host)
    if len(numbers) != 3 or not numbers[1]:
        return False
    pid, started, _ = numbers
    return _start_time(int(pid)) != started
