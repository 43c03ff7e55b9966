"""The loggers of another library, found by the names of its packages."""

from __future__ import annotations

import logging


def loggers_below(package: str) -> list[logging.Logger]:
    """The loggers of the modules of a package, as far as they were imported.

    So the modules need not be named, which may be private.

    Args:
        package:
            The name of the package, such as ``"optuna.study"``.
    """
    known = dict(logging.root.manager.loggerDict)
    return [
        logger
        for name, logger in known.items()
        if name.startswith(f"{package}.") and isinstance(logger, logging.Logger)
    ]
