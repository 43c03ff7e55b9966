"""Strategies and metrics of the user's, from files that the command is given."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_quant.cli.config_file import read_named_files


if TYPE_CHECKING:
    from optuna_quant._common.option_kinds import Plain


def add_plugin(parser: argparse.ArgumentParser) -> None:
    """Add the option that names such files.

    Args:
        parser:
            The parser.
    """
    parser.add_argument(
        "--plugin",
        metavar="FILE.py",
        action="append",
        help="load strategies (@register_strategy) and metrics (SampleMetric, CorpusMetric) of "
        "your own, which then have names as ours; repeat it for several files",
    )


def with_plugins(args: argparse.Namespace, given: Mapping[str, Plain]) -> dict[str, Plain]:
    """The options, in which the name of a metric of a plugin is where it is found.

    The plugins are loaded, so that their strategies are known.

    Args:
        args:
            The arguments.
        given:
            The options.

    Raises:
        ValueError:
            If a file cannot be loaded.
    """
    # They take long to import, and the command shows its help without them.
    from optuna_quant.cli.loading import load_module
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric

    found: dict[str, str] = {}
    for path in _files(args):
        for name, value in vars(load_module("--plugin", Path(path))).items():
            if isinstance(value, SampleMetric | CorpusMetric):
                found |= {name: f"{path}:{name}", value.name: f"{path}:{name}"}
    metric = given.get("metric")
    meant = found.get(metric) if isinstance(metric, str) else None
    return {**given, "metric": meant} if meant is not None else dict(given)


def _files(args: argparse.Namespace) -> tuple[str, ...]:
    """The plugins of the configuration file and of the flags; none if a command takes none."""
    if not hasattr(args, "plugin"):
        return ()
    config = getattr(args, "config", None)
    named = () if config is None else read_named_files(config).plugins
    return (*named, *(args.plugin or ()))
