"""With what models are run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import os
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.option import Flag
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import COUNT
from optuna_quant._common.option_kinds import FOLDER
from optuna_quant.tuning.options.checks import check_count


if TYPE_CHECKING:
    from optuna_quant.backends.default import RunSettings


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """With what models are run.

    Args:
        providers:
            ONNX Runtime's execution providers.
        threads:
            The threads with which ONNX Runtime runs one model; 1 where several processes share a
            machine. Default: all cores.
        session_options:
            ONNX Runtime's session options, instead of ``threads``.
        cache_dir:
            A directory in which calibration statistics are kept for the next time.

    Raises:
        TypeError:
            If an option has another type.
        ValueError:
            If an option is out of its range, or both ``threads`` and ``session_options`` are
            given.
    """

    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = option(None)
    threads: int | None = option(
        None,
        Flag(
            help="the threads that ONNX Runtime uses to run one model; give 1 if several "
            "processes share a machine (default: all cores)",
            kind=COUNT,
            metavar="N",
        ),
    )
    session_options: RunSettings | None = option(None)
    cache_dir: str | os.PathLike[str] | None = option(
        None,
        Flag(
            help="keep calibration statistics here for other commands and later runs",
            kind=FOLDER,
            metavar="DIR",
            heading="output and record",
        ),
    )

    def __post_init__(self) -> None:
        check_count("threads", self.threads)
        if self.threads is not None and self.session_options is not None:
            raise ValueError(
                f"Either threads (got {self.threads!r}) or session_options can be given, not "
                "both: session_options.intra_op_num_threads sets the same."
            )

    def session(self) -> RunSettings | None:
        """The session options that say all of it; :obj:`None` for the default."""
        if self.threads is None:
            return self.session_options
        from optuna_quant.backends.default import session_options

        return session_options(threads=self.threads)
