"""What a search begins from, and how its workers go about it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant._common.option import Flag
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import COUNT
from optuna_quant._common.option_kinds import FILE
from optuna_quant._common.option_kinds import LEVEL
from optuna_quant._common.option_kinds import STUDY
from optuna_quant.tuning.options.checks import check_flag


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.costs.given import CostsLike
    from optuna_quant.storages.artifacts import ArtifactStore
    from optuna_quant.tuning.earlier_study import FromStudy


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a search begins from, and how its workers go about it.

    Args:
        from_study:
            An earlier study of the same model, of one that was fine-tuned since (the same op
            names and types), or of one with some ops in common: a study, a
            :class:`~optuna_quant.TuningResult`, the name of a study in the same storage, or a
            pair ``(storage, name)``, with the name :obj:`None` for the only study there. What it
            has taught is the prior of the search, and its answer is the first candidate where the
            criterion and the objective are the same: if nothing has changed, that and the FP32
            model are all that is evaluated. The earlier study is only read; what is taken from it
            is written into the new study at its start, so that it is not needed again. See
            ``docs/warm_start.md``.
        costs:
            What each op costs in each option, for a device that is not here or as you have
            edited it: an :class:`optuna_quant.costs.Costs`, a single
            :class:`~optuna_quant.costs.CostTable`, the path of a JSON file, or a function that
            gives the seconds of a configuration. Default: the backend measures it, once for the
            study, if the objective needs it. See ``docs/objectives.md``.
        quant_level:
            How the strategy is chosen: ``"auto"`` (the default strategy, ``"auto"``), 0
            (``"conservative"``) or 1 (the named strategy, or ``"basic"``). Default: the strategy
            that ``strategy`` names, otherwise ``"auto"``.
        n_jobs:
            How many models are evaluated at a time, in threads of this process. ``evaluate`` must
            allow that.
        callbacks:
            More callbacks of the study, called after each trial.
        show_progress:
            Whether to show every trial and where the search stands, on ``sys.stderr``: a live
            view on a terminal, a table in a notebook, otherwise a line per trial.
        artifact_store:
            Where processes that share the study share what calibration gives, if that is large,
            and quantized weights that take long to compute: a store of :mod:`optuna.artifacts`
            that all reach. Default: in the study itself, as far as they are small.

    Raises:
        TypeError:
            If an option has another type.
    """

    from_study: FromStudy | None = option(
        None,
        Flag(
            help="start from the results of an earlier study of the same model, a fine-tuned "
            "one, or one with the same op names: its name in the same storage, or "
            "NAME@STORAGE; @STORAGE for the only study there",
            kind=STUDY,
            metavar="NAME[@STORAGE]",
            heading="output and record",
        ),
    )
    costs: CostsLike | None = option(
        None,
        Flag(
            help="what each op costs with each option, as written by 'optuna-quant space "
            "--save-costs' on the target machine (default: measured here)",
            kind=FILE,
            metavar="FILE",
            reads="file of --costs",
        ),
    )
    quant_level: str | int | None = option(
        None,
        Flag(
            help="as in neural-compressor; instead of --strategy",
            kind=LEVEL,
            choices=("auto", "0", "1"),
        ),
    )
    n_jobs: int = option(
        1,
        Flag(
            help="how many models to evaluate at a time, in threads of this process (default: 1)",
            kind=COUNT,
            names=("--jobs",),
            metavar="N",
            common=True,
        ),
    )
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = option(())
    show_progress: bool = option(True)
    artifact_store: ArtifactStore | None = option(None)

    def __post_init__(self) -> None:
        check_flag("show_progress", self.show_progress)
