"""An evaluation that asks after each batch whether it is late."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.base import NativeModel
    from optuna_quant.evaluation.sample_evaluation import SampleEvaluation


class AskedBetweenBatches:
    """An evaluation of single samples that asks after each batch whether it is late.

    Args:
        evaluation:
            The evaluation.
        check:
            Raises if it is late.
    """

    def __init__(self, evaluation: SampleEvaluation, check: Callable[[], None]) -> None:
        self._evaluation = evaluation
        self._check = check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluation, name)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self._evaluation.samples

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest score of a sample."""
        return self._evaluation.bounds

    def scores(
        self, model: NativeModel, indices: NDArray[Any]
    ) -> Generator[NDArray[Any], None, None]:
        """The scores of samples, batch by batch."""
        return self._asked(self._evaluation.scores(model, indices))

    def scores_and_margins(
        self, model: NativeModel, indices: NDArray[Any]
    ) -> Generator[tuple[NDArray[Any], NDArray[Any] | None], None, None]:
        """The scores and margins of samples, batch by batch."""
        return self._asked(self._evaluation.scores_and_margins(model, indices))

    def _asked(self, batches: Any) -> Generator[Any, None, None]:
        with closing(batches) if hasattr(batches, "close") else _Nothing():
            for batch in batches:
                self._check()
                yield batch


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
