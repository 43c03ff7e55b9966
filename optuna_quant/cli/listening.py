"""The options that say where a command listens."""

from __future__ import annotations

import argparse
from functools import partial


def add_address(parser: argparse.ArgumentParser, *, port: int, least: int = 1) -> None:
    """Add ``--host`` and ``--port``.

    Args:
        parser:
            The parser.
        port:
            The default port.
        least:
            The least that may be given: 0 where any free one will do.
    """
    parser.add_argument(
        "--host",
        default="localhost",
        help="the address to listen on; 0.0.0.0 for all addresses of this machine (default: "
        "localhost)",
    )
    parser.add_argument(
        "--port",
        type=partial(_port, least=least),
        default=port,
        help=f"the port to listen on (default: {port})",
    )


def _port(text: str, *, least: int) -> int:
    if not text.isdecimal() or not least <= int(text) < 65536:
        raise argparse.ArgumentTypeError(f"it must be from {least} to 65535, but is {text}")
    return int(text)
