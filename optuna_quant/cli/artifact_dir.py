"""The option ``--artifact-dir``: a directory for files of studies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore


def add_artifact_dir(parser: argparse._ActionsContainer, text: str) -> None:
    """Add the option to a parser or a group of it.

    Args:
        parser:
            The parser.
        text:
            Its help.
    """
    parser.add_argument("--artifact-dir", metavar="DIR", help=text)


def artifact_store(args: argparse.Namespace) -> FileSystemArtifactStore | None:
    """The store in the directory, which is made if it is not there; None without the option.

    Args:
        args:
            The arguments of the command.

    Raises:
        ValueError:
            If it is no directory, or cannot be made.
    """
    from optuna.artifacts import FileSystemArtifactStore

    if args.artifact_dir is None:
        return None
    try:
        Path(args.artifact_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--artifact-dir: {args.artifact_dir!r} is no directory: {error}."
        ) from error
    return FileSystemArtifactStore(args.artifact_dir)
