"""Run every strategy on the digits example, and put what it did into the pages.

``python docs/measure_strategies.py`` replaces what stands between ``<!-- figures -->`` and
``<!-- end of figures -->`` on each page of a strategy and on their index. With names of strategies
it measures these alone: their pages, and their rows of the index.

The accuracies depend on the kind of processor: it says when that of the default is not the pages'.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import importlib.util
import re
import sys
import time
from typing import Any
import warnings

import numpy as np
import optuna
from run_pages import DIGITS
from run_pages import DOCS

import optuna_quant
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


_PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """A search to measure.

    Args:
        strategy:
            The strategy.
        kwargs:
            Its options.
    """

    strategy: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The strategy with its options."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.kwargs.items())
        return f"{self.strategy}, `{options}`" if options else self.strategy


def calibration_and_evaluation() -> dict[str, Any]:
    """The bundled example's calibration data and evaluation function."""
    spec = importlib.util.spec_from_file_location("evaluate", DIGITS / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {"batches": {"x": np.load(DIGITS / "calib.npz")["x"]}, "accuracy": module.accuracy}


FALLBACK = {"fallback": True}
RUNS = (
    Run("auto"),
    Run("auto", {"compat": "inc2"}),
    Run("conservative"),
    Run("basic"),
    Run("mse"),
    Run("mse_v2"),
    Run("hawq_v2"),
    Run("bayesian"),
    Run("bayesian", FALLBACK),
    Run("tpe"),
    Run("tpe", FALLBACK),
    Run("exhaustive"),
    Run("random"),
    Run("random", FALLBACK),
)


@dataclass(frozen=True)
class Measured:
    """What a run did."""

    run: Run
    result: optuna_quant.TuningResult
    seconds: float


def measure(run: Run) -> Measured:
    """Run a strategy on the digits example: at most one percent relative loss, 100 trials.

    The objective is one that is the same on all machines: the number of ops in FP32.
    """
    names = calibration_and_evaluation()
    start = time.perf_counter()
    result = optuna_quant.tune(
        DIGITS / "model.onnx",
        calibration_data=names["batches"],
        evaluate=names["accuracy"],
        tuning_criterion=optuna_quant.TuningCriterion(
            strategy=run.strategy, strategy_kwargs=run.kwargs, objective="ops"
        ),
        recipes="none",  # The same space for all of them.
        verify=False,
    )
    return Measured(run, result, time.perf_counter() - start)


def index_table(rows: Mapping[str, str], before: str) -> Iterator[str]:
    """The lines of the table that compares the strategies.

    Args:
        rows:
            The new rows, by how they begin.
        before:
            The index, from which the rows of other runs are kept.
    """
    yield "| strategy | trials | answer | accuracy | ops in FP32 | seconds |"
    yield "| --- | ---: | --- | ---: | ---: | ---: |"
    (table,) = _PLACE.findall(before)
    for run in RUNS:
        begin = _begin_of_row(run)
        kept = (line for line in table.splitlines() if line.startswith(begin))
        row = rows.get(begin) or next(kept, None)
        if row is not None:
            yield row


def _begin_of_row(run: Run) -> str:
    link = f"[{run.strategy}]({run.strategy}.md)"
    return f"| {run.label.replace(run.strategy, link, 1)} | "


def _row(found: Measured) -> str:
    result = found.result
    return (
        f"{_begin_of_row(found.run)}{trials_used(result.study.trials)} | "
        f"{'met' if result.met else 'not met'} | {result.metric:.4f} | "
        f"{len(result.fallback_ops)} | {found.seconds:.1f} |"
    )


def warning_of_processor(measured: Iterable[Measured], page: str) -> str:
    """Say that the default has another accuracy than on a page; empty if it has the same.

    Args:
        measured:
            The runs. One in which the default was not tried says nothing.
        page:
            The text of a page of a strategy that tries the default.
    """
    (there,) = re.findall(r"^\| default \| \d+ \| ([\d.]+) \|$", page, re.MULTILINE)
    for found in measured:
        space = found.result.space
        for trial in found.result.study.trials:
            if trial.value is None or space.config_from_params(trial.params) != space.default():
                continue
            if f"{trial.value:.4f}" != there:
                return (
                    f"The default has the accuracy {trial.value:.4f} here, and {there} on the "
                    "pages: another kind of processor. Measure on one like theirs, or all."
                )
    return ""


def page_table(measured: list[Measured]) -> Iterator[str]:
    """The lines about one strategy: its stages, and what came out."""
    for found in measured:
        yield f"{_sentence(found)}"
        yield ""
        stages: dict[str, list[optuna.trial.FrozenTrial]] = {}
        for trial in found.result.study.trials:
            claim = TrialView(trial).claim
            stages.setdefault(claim.stage if claim else "", []).append(trial)
        yield "| stage | trials | best accuracy |"
        yield "| --- | ---: | ---: |"
        for stage, trials in stages.items():
            best = max(trial.value for trial in trials if trial.value is not None)
            reused = sum(record.REUSED_FROM in trial.user_attrs for trial in trials)
            note = f", {reused} of them repeats" if reused else ""
            yield f"| {stage} | {len(trials)}{note} | {best:.4f} |"
        yield ""


def _sentence(found: Measured) -> str:
    result, options = found.result, found.run.kwargs
    given = ", ".join(f"`{name}={value!r}`" for name, value in options.items())
    which = f"With {given}: " if given else ""
    trials = trials_used(result.study.trials)
    ops = result.fallback_ops
    left = f"with {', '.join(f'`{op}`' for op in ops)} in FP32" if ops else "with no op in FP32"
    if len(ops) > 6:
        left = f"with {len(ops)} of {len(result.config.ops)} ops in FP32"
    outcome = "met the criterion" if result.met else "did not meet the criterion; the closest has"
    verb = " with" if result.met else ""
    return (
        f"{which}{trials} trials and {found.seconds:.1f} s, "
        f"{outcome}{verb} {result.metric:.4f}, {left}."
    )


def main() -> None:
    """Measure, and write the pages: of the strategies that are named, or of all."""
    wanted = set(sys.argv[1:])
    if unknown := wanted - {run.strategy for run in RUNS}:
        raise SystemExit(f"No run of {', '.join(sorted(unknown))} is in RUNS.")
    runs = [run for run in RUNS if not wanted or run.strategy in wanted]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    measured = []
    for run in runs:
        print(run.label, file=sys.stderr, flush=True)
        measured.append(measure(run))
    folder = DOCS / "strategies"
    warning = warning_of_processor(measured, (folder / "basic.md").read_text())
    if warning:
        print(warning, file=sys.stderr)
    rows = {_begin_of_row(found.run): _row(found) for found in measured}
    by_page = {"index": index_table(rows, (folder / "index.md").read_text())}
    for run in runs:
        own = [found for found in measured if found.run.strategy == run.strategy]
        by_page[run.strategy] = page_table(own)
    for page, lines in by_page.items():
        path = folder / f"{page}.md"
        text = "\n" + "\n".join(lines).rstrip() + "\n\n"
        path.write_text(_PLACE.sub(lambda _, text=text: text, path.read_text()))


if __name__ == "__main__":
    main()
