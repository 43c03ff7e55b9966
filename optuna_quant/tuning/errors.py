"""Errors of searches that have a result but did not end normally."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.tuning.result import TuningResult


class TuningInterrupted(KeyboardInterrupt):
    """A search was interrupted, for example by Ctrl-C; it keeps what was found by then.

    It is a ``KeyboardInterrupt``, so that a script that does not expect it stops as any script
    does, and goes on with nothing that was not searched to its end.

    Example:

        .. code-block:: python

            try:
                result = optuna_quant.tune(...)
            except optuna_quant.TuningInterrupted as interrupted:
                result = interrupted.result

    Attributes:
        result:
            What was found. The best model so far is in the ``output``, if there is one.
            :obj:`None` if there was no study yet: while arguments and data were checked.
    """

    def __init__(self, result: TuningResult | None) -> None:
        self.result = result
        if result is None:
            super().__init__("The search was interrupted before it had started.")
            return
        found = "a" if result.met else "no"
        super().__init__(
            f"The search was interrupted. It had found {found} model that meets the criterion; "
            "the attribute 'result' of this exception holds what is known, and the same call "
            "with the same storage and study_name goes on."
        )


class OutputError(OSError):
    """The model that a search has found could not be written to ``output``.

    Attributes:
        result:
            What was found. ``result.save`` writes it to another file.
    """

    def __init__(self, message: str, result: TuningResult) -> None:
        super().__init__(message)
        self.result = result
