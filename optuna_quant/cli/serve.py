"""The command ``optuna-quant serve``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import socket

from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.exit_codes import MET
from optuna_quant.cli.listening import add_address
from optuna_quant.cli.messages import say
from optuna_quant.cli.options import storage_given


def add_serve(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    serve = commands.add_parser(
        "serve",
        help="put a gRPC proxy in front of a storage, for many workers",
        description="Serve a storage to many workers: they use --storage grpc://HOST:PORT, and "
        "only this process connects to the database. It does not ask for a password: make it "
        "reachable for your workers only.",
    )
    serve.add_argument(
        "--storage",
        metavar="URL",
        help="the storage to serve, as for tune (default: the environment variable "
        "OPTUNA_STORAGE)",
    )
    add_address(serve, port=13000)
    serve.add_argument("--verbose", action="store_true", help="show where an error comes from")
    serve.end_with_examples(
        "optuna-quant serve --storage postgresql://user@host/studies --host 10.0.0.5",
        "optuna-quant tune --config tune.toml --storage grpc://10.0.0.5:13000",
    )


def run(args: argparse.Namespace) -> int:
    """Serve a storage to many workers, through one process."""
    from optuna_quant.storages.address import shown_address
    from optuna_quant.storages.open import open_storage

    try:
        # Optuna would say so only when it is used.
        importlib.import_module("grpc")
    except ImportError as error:
        raise ValueError("serve needs gRPC. Run: pip install grpcio protobuf") from error
    from optuna.storages import run_grpc_proxy_server

    address = storage_given(vars(args))
    if address is None:
        raise ValueError("serve needs --storage URL, or the environment variable OPTUNA_STORAGE.")
    if "://" not in address or address.split("://")[0] in ("redis", "rediss", "unix", "grpc"):
        raise ValueError(
            f"--storage {shown_address(address)!r} cannot be served: Optuna's gRPC proxy needs "
            "a database behind it (postgresql://..., mysql://..., sqlite:///FILE)."
        )
    storage = open_storage(address)
    # A second server on the same port would be no error to gRPC.
    with socket.create_server((args.host, args.port)):
        pass
    say(
        f"Serving on {args.host}, port {args.port}: workers use --storage "
        f"grpc://HOST:{args.port}. Ctrl-C ends it."
    )
    with contextlib.suppress(KeyboardInterrupt):
        run_grpc_proxy_server(storage, host=args.host, port=args.port)
    return MET
