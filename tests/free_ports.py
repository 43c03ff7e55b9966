"""Ports for servers of a test's own."""

from __future__ import annotations

from pathlib import Path
import random
import socket


_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nothing listens on, and that the system gives to no outgoing connection.

    A server that is killed and started again would otherwise find its port taken now and then: by
    a connection of another process, or by one of its own clients that tries to reach it.
    """
    end = min(int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768, 32768)
    if end <= 12000:  # Here the system may give any of them.
        end = 32768
    chosen = random.Random()  # Of its own: a seeded test must not choose another one's port.
    for _ in range(100):
        port = chosen.randrange(10000, end)
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"There is no free port between 10000 and {end}.")
