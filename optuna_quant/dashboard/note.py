"""The note of a study: its outcome in words, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant._common.printable import listed
from optuna_quant.costs.objective import OPS
from optuna_quant.dashboard.overview import Outcome
from optuna_quant.dashboard.overview import shown_gain
from optuna_quant.dashboard.trial_words import shown_config


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.dashboard.overview import Overview
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.space.space import TuningSpace


MARK = "*Written by optuna_quant. Only text below this line is kept.*"
"""What stands above this line is ours, and what people have written stands below it."""

_MOST_MODELS = 20

_HEADLINES = {
    Outcome.MET: "The criterion is met",
    Outcome.NOT_MET: "The criterion is not met",
    Outcome.NOT_REPEATED: "The criterion is met, but not when the model was evaluated again",
    Outcome.NOT_FULLY_EVALUATED: "Not fully evaluated: no model met the criterion on all samples",
    Outcome.NO_GAIN: "No gain: no quantized model is predicted to be better than FP32",
    Outcome.NOTHING: "No quantized model is evaluated yet",
    Outcome.NOT_JUDGED: "No model can be judged: the metric of FP32 is not known",
}


def study_note(
    overview: Overview,
    space: TuningSpace | None = None,
    *,
    left_out: int = 0,
    link: str = "",
    models: Sequence[int] = (),
) -> str:
    """The outcome of a study in words.

    Args:
        overview:
            The record of the study.
        space:
            The tuning space, for the configuration of the best trial.
        left_out:
            How many ops it does not have because of what they cost.
        link:
            The address of a trial in the dashboard, up to its number; empty for no link.
        models:
            The numbers of the trials whose models are among their artifacts.
    """
    so_far = "" if overview.stopped_because else " so far"
    lines = [f"## {_HEADLINES[overview.outcome]}{so_far}", ""]
    if overview.best is not None:
        lines += _about_best(overview, overview.best, space, left_out, link)
    lines += [f"- **Criterion**: {overview.criterion}"]
    if overview.baseline is not None:
        lines += [f"- **FP32**: {overview.metric_name} {overview.baseline.value:.6g}"]
    if overview.objective.measures != (OPS,):
        lines += [f"- **Best is**: the least {overview.objective.name}"]
    if overview.counts:
        counted = ", ".join(f"{count} {kind}" for kind, count in overview.counts.items())
        lines += [f"- **Trials**: {sum(overview.counts.values())} ({counted})"]
    if models:
        shown = [_linked(number, link) for number in models]
        pages = "page of trial" if len(models) == 1 else "pages of trials"
        lines += [f"- **Models**: on the {pages} {listed(shown, _MOST_MODELS)}"]
    if overview.stopped_because:
        lines += [f"- **Stopped**: {overview.stopped_because}"]
    return "\n".join(lines)


def merged(existing: str, note: str) -> str:
    """A note before the text that people have written.

    Args:
        existing:
            The note so far.
        note:
            What is to stand first, in place of what we have written before.
    """
    _, mark, people = existing.partition(MARK)
    kept = people if mark else existing
    return "\n\n".join(part for part in (note, MARK, kept.strip()) if part)


def _about_best(
    overview: Overview, best: Candidate, space: TuningSpace | None, left_out: int, link: str
) -> list[str]:
    title = "Best trial" if overview.outcome == Outcome.MET else "Closest trial"
    about = "" if best.samples is None else "about "
    seen = (
        "" if best.samples is None else f", after {best.samples[0]} of {best.samples[1]} samples"
    )
    said = f"{overview.metric_name} {about}{best.metric:.6g}{seen}"
    if overview.baseline is not None:
        loss = overview.criterion.loss(best.metric, overview.baseline.value)
        said += f", loss {overview.criterion.show(loss)}"
    lines = [f"- **{title}**: {_linked(best.trial.number, link)} ({said})"]
    gain = shown_gain(best.measures(overview.objective), overview.fp32)
    if gain:
        lines += [f"- **Costs**: {gain}"]
    if space is not None:
        try:
            config = space.config_from_params(best.view.known_params)
        except (KeyError, ValueError):
            return lines
        lines += [f"- **Configuration**: {shown_config(config, left_out=left_out)}"]
    return lines


def _linked(number: int, link: str) -> str:
    return f"[{number}]({link}{number})" if link else str(number)
