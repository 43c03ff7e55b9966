"""How models are evaluated in a search, and how the answer is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant._common.durations import as_seconds
from optuna_quant._common.option import Flag
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import BOUNDS
from optuna_quant._common.option_kinds import COUNT
from optuna_quant._common.option_kinds import FUNCTION
from optuna_quant._common.option_kinds import HOLDOUT
from optuna_quant._common.option_kinds import INPUTS
from optuna_quant._common.option_kinds import NAMES
from optuna_quant._common.option_kinds import NUMBER
from optuna_quant._common.option_kinds import SECONDS_OR_NONE
from optuna_quant._common.option_kinds import SWITCH
from optuna_quant._common.option_kinds import TEXT
from optuna_quant.tuning.options.checks import check_count
from optuna_quant.tuning.options.checks import check_flag
from optuna_quant.tuning.options.checks import check_probability
from optuna_quant.tuning.options.checks import check_seconds


if TYPE_CHECKING:
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.setup import Evaluate


_HEADING = "data and evaluation"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How models are evaluated in a search, and how the answer is checked.

    Args:
        metric_bounds:
            The lowest and the highest score of a sample, for a metric that does not say it, or
            for the scores that ``evaluate`` gives. Without bounds every model is evaluated on all
            samples; without the one on the bad side, as of ``"mse"``, it is given up once it
            certainly fails.
        output_names:
            The name of the model's output that the metric is of, or the names of several, of
            which the metric's function then gets a tuple. Default: the first output; where there
            are others, a warning says so.
        inputs:
            Inputs of the model that are the same for all samples, such as a sampling rate, a flag
            or the first recurrent state: ``inputs={"sr": 16000, "state": 0}``. They are given to
            the model with all data: for calibration, sensitivities, evaluation and latency. A
            number fills the whole input; what else a value may be says
            :class:`~optuna_quant.data.constant_inputs.ConstantInputs`.
        transform:
            Function of what the data hold of one sample, an array or an image, that gives the
            input as the model takes it, without an axis of samples. It goes for ``data``,
            ``holdout`` and ``calibration_data``. Default: all are used as they are.
        batch_size:
            How many samples of ``data`` are run at once. Default: 64, but 1 for models with
            dynamic quantization, in which what a sample gets depends on the others in its batch.
            With ``evaluate``, for how many indices it is asked at once; default: 64.
        evaluation_threads:
            How many batches of ``data`` are run at the same time; without ``session_options`` or
            ``threads`` they share the cores. By default two on processors with several cores, and
            one where ``session_options``, ``threads``, ``providers`` or a ``backend`` are given.
        evaluation_timeout:
            After how many seconds (or what duration, such as ``"15m"``) the evaluation of a
            model is ended, so that one that hangs does not hold up everybody else. A candidate
            fails then, once and for all; of the FP32 model it is an error. The second evaluation
            and that of a hold-out set have as long, each. See
            :class:`~optuna_quant.QuantObjective`. Default: never.
        early_stopping:
            How it is decided that a model fails before all samples were seen: ``"paired"``
            (default), ``"unpaired"`` or ``"exact"``, see
            :class:`~optuna_quant.EarlyStopping`; ``"off"`` evaluates every model on all
            samples. It is about ``data``, or a function ``evaluate`` that takes indices.
        error_probability:
            With what probability a model that meets the criterion may be given up.
        holdout:
            The part of ``data`` that the search does not see, such as 0.3, drawn with the seed;
            or labelled data in the form of ``data``, or with ``evaluate`` a second such function,
            of samples that it must not see. The model that was found and the FP32 model are
            evaluated on it once, at the end; it decides nothing. What it says is in
            ``result.holdout``. Default: none.
        verify:
            Whether the model that was found is evaluated a second time, to see whether its metric
            is reproducible. With ``data`` a few samples tell, and all are evaluated again only if
            those have not given the same; ``evaluate`` is called once more (for a few samples if
            it takes indices, and gives margins or scores that are more than right and wrong). If
            the second metric does not meet the criterion, nothing is met.
        measure_gain:
            Whether the answer is measured beside the FP32 model at the end, for about two
            seconds; for the objective ``"latency"`` those that are predicted to be about as fast
            as well, and the fastest is taken. What it says is in ``result.gain``.
        latency_batch_size:
            How many samples are in a run whose time is measured, and for the objective
            ``"latency"`` predicted. Give the batch that the model will be used with: what is
            fastest depends on it. Default: 1.

    Raises:
        TypeError:
            If an option has another type.
        ValueError:
            If an option is out of its range.
    """

    metric_bounds: tuple[float, float] | None = option(
        None,
        Flag(
            help="the lowest and the highest score that a sample can have, if the metric does "
            "not say",
            kind=BOUNDS,
            metavar=("LOW", "HIGH"),
            heading=_HEADING,
        ),
    )
    output_names: str | Sequence[str] | None = option(
        None,
        Flag(
            help="the output of the model that the metric scores; if given several times, a "
            "function of --metric gets a tuple of them (default: the first output)",
            kind=NAMES,
            names=("--output-name",),
            metavar="NAME",
            heading=_HEADING,
        ),
    )
    inputs: InputValues | None = option(
        None,
        Flag(
            help="an input of the model that is the same for all samples, such as a sampling "
            "rate or the first state: a number (which fills the whole input), true or false, a "
            "JSON list, @FILE.npy, or a text; repeat it for each such input",
            kind=INPUTS,
            names=("--input",),
            metavar="NAME=VALUE",
            heading=_HEADING,
        ),
    )
    transform: Transform | None = option(
        None,
        Flag(
            help="function that gets one sample of the data, an array or an image, and returns "
            "the model's input for it, without a sample axis; for --data, --holdout and "
            "--calibration",
            kind=FUNCTION,
            metavar="FILE.py:NAME",
            heading=_HEADING,
            reads="file of --transform",
        ),
    )
    batch_size: int | None = option(
        None,
        Flag(
            help="how many samples of --data to run at once (default: 64, but 1 for models "
            "with dynamic quantization, whose output for a sample depends on its batch)",
            kind=COUNT,
            metavar="N",
            heading=_HEADING,
        ),
    )
    evaluation_threads: int | None = option(
        None,
        Flag(
            help="how many batches of --data to run in parallel; without --threads they share "
            "the cores (default: 2, or 1 with --threads or on one core)",
            kind=COUNT,
            metavar="N",
            heading=_HEADING,
        ),
    )
    evaluation_timeout: float | str | None = option(
        None,
        Flag(
            help="stop an evaluation that takes longer, so that one that hangs does not block "
            "all workers; the candidate fails and is not tried again (default: no limit)",
            kind=SECONDS_OR_NONE,
            metavar="TIME",
            heading=_HEADING,
        ),
    )
    early_stopping: str | None = option(
        None,
        Flag(
            help="when to give up a model before it has seen all of --data: by a test on its "
            "scores and their differences from the FP32 model's (paired), on its scores alone "
            "(unpaired), only if it certainly fails (exact), or never (off) (default: paired)",
            kind=TEXT,
            choices=("paired", "unpaired", "exact", "off"),
            heading=_HEADING,
        ),
    )
    error_probability: float = option(
        1e-3,
        Flag(
            help="the probability with which a model that meets the criterion may be given up "
            "(default: 0.001)",
            kind=NUMBER,
            metavar="P",
            heading=_HEADING,
        ),
    )
    holdout: float | DataLike | Evaluate | None = option(
        None,
        Flag(
            help="samples that the search does not see: a part of --data such as 0.3, other "
            "samples in the form of --data, or with --evaluate a second function FILE.py:FUNC; "
            "the answer is evaluated on them once, at the end",
            kind=HOLDOUT,
            metavar="PART|FILE",
            heading=_HEADING,
            reads="hold-out file",
            common=True,
        ),
    )
    verify: bool = option(
        True,
        Flag(
            help="do not evaluate the answer a second time to see whether its metric is "
            "reproducible (with --data a few samples are enough)",
            kind=SWITCH,
            names=("--no-verify",),
            value=False,
            heading=_HEADING,
        ),
    )
    measure_gain: bool = option(
        True,
        Flag(
            help="do not compare the answer with FP32 in time and size at the end",
            kind=SWITCH,
            names=("--no-gain",),
            value=False,
        ),
    )
    latency_batch_size: int | None = option(
        None,
        Flag(
            help="the samples in a run whose time counts; give the batch that the model will be "
            "used with (default: 1)",
            kind=COUNT,
            metavar="N",
        ),
    )

    @property
    def evaluation_seconds(self) -> float | None:
        """The evaluation timeout in seconds."""
        return as_seconds("evaluation_timeout", self.evaluation_timeout)

    def __post_init__(self) -> None:
        if self.transform is not None and not callable(self.transform):
            raise TypeError(
                f"transform must be a function of one sample, but got {self.transform!r}."
            )
        check_count("batch_size", self.batch_size)
        check_count("evaluation_threads", self.evaluation_threads)
        check_probability("error_probability", self.error_probability)
        check_flag("verify", self.verify)
        check_seconds("evaluation_timeout", self.evaluation_timeout, above_zero=True)
        check_flag("measure_gain", self.measure_gain)
        check_count("latency_batch_size", self.latency_batch_size)
