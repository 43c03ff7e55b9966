"""A run of a session whose errors say what may be wrong with the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from typing import Any

import onnxruntime


# The runtime's own log would say the same of each run; the error is raised in any case.
_NOTHING_LOGGED = 4


def run_session(
    session: onnxruntime.InferenceSession, names: Sequence[str] | None, feed: Mapping[str, Any]
) -> list[Any]:
    """Compute outputs.

    Args:
        session:
            The session, or what wraps one.
        names:
            The names of the outputs; None for all.
        feed:
            An array for each input, by its name.

    Raises:
        Exception:
            What the runtime raises, with a note if it is known what that means.
    """
    options = (_quiet(),) if isinstance(session, onnxruntime.InferenceSession) else ()
    try:
        return list(session.run(names, dict(feed), *options))
    except Exception as error:
        note = cause_of_failure(str(error))
        if note:
            error.add_note(note)
        raise


def cause_of_failure(text: str) -> str:
    """What an error of the runtime means for texts, as a sentence; empty if that is not known.

    Args:
        text:
            What the runtime says.
    """
    if "Gather" in text and "out of data bounds" in text:
        return (
            "A table has no row of that number: tokens are beyond the model's vocabulary, or a "
            "text is longer than the model has positions."
        )
    if "Attempting to broadcast" in text:
        return (
            "Two sizes do not fit: an input may be longer than the model takes, as a text beyond "
            "the limit of its positions."
        )
    return ""


@cache
def _quiet() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _NOTHING_LOGGED
    return options
