"""Evaluate models by a user's function, which returns one number or a score per sample."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from dataclasses import replace
import inspect
import math
import threading
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.counts import check_count
from optuna_quant.backends.base import native_of
from optuna_quant.evaluation.function_scores import as_scores
from optuna_quant.evaluation.function_scores import margins_in
from optuna_quant.evaluation.given_scores import GivenScores
from optuna_quant.evaluation.metrics.checked_scores import valid_scores
from optuna_quant.evaluation.metrics.score_bounds import Bounds
from optuna_quant.evaluation.metrics.score_bounds import checked_bounds
from optuna_quant.evaluation.metrics.score_bounds import useful_bounds
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.evaluation.value import for_fp32


if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from numpy.typing import NDArray


_NAMES = ("indices", "samples")
_BATCH_SIZE = 64
# A function that takes indices is tried on so many samples: most of their scores must be those
# that it gave with all others, but for a part of what lies between the lowest and the highest.
_TRIED = 16
_SAME = 0.1
_MOST_DIFFERENT = 0.25


class FunctionEvaluation:
    """Evaluates models by a function, which gives one number or the score of each sample.

    The first call tells which. A function that gives scores (a NumPy array, a list of numbers or a
    tensor, one score per sample) is used as labelled data are: the metric is the mean, the study
    keeps the scores, and the loss has a confidence interval. If it also takes a parameter named
    ``indices`` or ``samples``, without a default or with :obj:`None`, it can be asked for some of
    the samples: it gets an integer array of shape ``(n,)`` (:obj:`None` stands for all samples in
    their order) and gives their ``n`` scores in this order. Then it is a whole
    :class:`~optuna_quant.evaluation.sample_evaluation.SampleEvaluation`. With the scores it may
    give margins, as a pair of two arrays: how far each sample is from being decided otherwise, in
    any unit, such as the distance of the two largest logits. Those of the FP32 model have
    influence on the order of the samples, in which close ones come first.

    Example:

        .. code-block:: python

            def evaluate(session, indices=None):
                chosen = slice(None) if indices is None else indices
                (logits,) = session.run(None, {"x": x[chosen]})
                return logits.argmax(axis=1) == y[chosen]

            objective = QuantObjective(backend, space, FunctionEvaluation(evaluate), criterion)

    Args:
        function:
            The function. It gets the runtime's own object of a model
            (:class:`~optuna_quant.backends.base.HasNative`), such as an
            ``onnxruntime.InferenceSession``; the model itself if it has none.
        metric_bounds:
            The lowest and the highest score of a sample. Default: 0 and 1 if the scores of the
            FP32 model are booleans, otherwise not known: then every model is evaluated in full,
            and no scores are kept.
        higher_is_better:
            Whether a higher metric is better.
        batch_size:
            For how many samples the function is asked at once. Default: 64.

    Attributes:
        in_parts:
            Whether the function can be asked for some of the samples.
        higher_is_better:
            Whether a higher metric is better.
        tells_margins:
            Whether the function has given margins for the FP32 model.

    Raises:
        TypeError:
            If the batch size is no integer.
        ValueError:
            If the batch size is not positive, or the bounds are not two numbers of which one is
            finite, the lower one first.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *,
        metric_bounds: Bounds | None = None,
        higher_is_better: bool = True,
        batch_size: int | None = None,
    ) -> None:
        if batch_size is not None:
            check_count("batch_size", batch_size)
        self._function = function
        self._parameter = _indices_parameter(function)
        self._batch_size = _BATCH_SIZE if batch_size is None else batch_size
        self._given_bounds = None
        if metric_bounds is not None:
            self._given_bounds = checked_bounds("evaluate", metric_bounds)
        self._bounds = self._given_bounds
        self._count: int | None = None  # Of the scores; 0 if the function gives a number.
        self._knows_bounds = False  # Or knows that there are none.
        self._lock = threading.Lock()
        self.in_parts = self._parameter is not None
        self.tells_margins = False
        self.higher_is_better = higher_is_better

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        return f"{type(self).__name__}({name})"

    @property
    def is_known(self) -> bool:
        """Whether the kind and the bounds of the function's results are known."""
        return self._knows_bounds or self._count == 0

    @property
    def samples(self) -> int:
        """The number of samples; 0 if it is not known, or the function gives one number."""
        return self._count or 0

    @property
    def bounds(self) -> Bounds | None:
        """The lowest and the highest score of a sample.

        :obj:`None` if the best one is not known, as before the first call.
        """
        return useful_bounds(self._bounds, higher_is_better=self.higher_is_better)

    def signature(self) -> Mapping[str, str]:
        """What the function's metrics depend on."""
        return signature_of(self._function)

    def adopt(self, samples: int, bounds: Bounds) -> None:
        """Learn from a study what the function gives, before it was called here.

        Args:
            samples:
                The number of samples.
            bounds:
                The bounds of their scores, if none were given.
        """
        with self._lock:
            if self._count is None:
                self._count = samples
            if self._bounds is None:
                self._bounds = bounds
            self._knows_bounds = True

    def __call__(self, model: object) -> object:
        """The metric of a model: what the function gives, or its mean."""
        found = self.measure(model)
        return found.mean if isinstance(found, GivenScores) else found

    def measure(self, model: object) -> object:
        """What the function gives for all samples of a model.

        Returns:
            The scores; or what was returned instead, which should be one number.

        Raises:
            ValueError:
                If it is neither one number nor one finite score for each sample, or not of the
                kind and length that the function has given before.
        """
        return self._given(self._call(self._function, model, None))

    def see_fp32(self, model: object) -> object:
        """As :meth:`measure`, of the FP32 model: that tells the bounds of booleans.

        A function that takes indices is asked for a few samples as well.

        Raises:
            ValueError:
                As :meth:`measure`; or if the function was given bounds or takes indices, and does
                not give scores, or others when it is asked for some of the samples.
        """
        returned = self._call(for_fp32(self._function), model, None)
        scores = as_scores(returned, in_parts=self.in_parts)
        if scores is not None and scores.dtype == np.bool_ and self._bounds is None:
            self._bounds = (0.0, 1.0)
        self._knows_bounds = True
        found = self._given(returned)
        if isinstance(found, GivenScores):
            if self.in_parts:
                self._try_some(model, found)
            margins = margins_in(returned, found.samples)
            self.tells_margins = margins is not None
            return replace(found, margins=margins)
        if self._given_bounds is not None:
            raise ValueError(
                f"metric_bounds={self._given_bounds} are bounds of single scores, but evaluate "
                "returns one number for all samples: return one score for each sample, or "
                "leave metric_bounds out."
            )
        return found

    def scores(
        self, model: object, indices: ArrayLike
    ) -> Generator[NDArray[np.float64], None, None]:
        """The scores of some samples.

        Args:
            model:
                The model.
            indices:
                Which samples, from 0 on, in any order, of shape ``(n,)``.

        Returns:
            A generator that gives the scores in the order of ``indices``: a batch at a time if
            the function can be asked for some samples, otherwise all at once.
        """
        for scores, _ in self.scores_and_margins(model, indices):
            yield scores

    def scores_and_margins(
        self, model: object, indices: ArrayLike
    ) -> Generator[tuple[NDArray[np.float64], NDArray[np.float64] | None], None, None]:
        """As :meth:`scores`, with the margins; :obj:`None` if the function does not tell them."""
        wanted = np.asarray(indices, dtype=np.intp)
        if not self.in_parts:
            found = self.measure(model)
            assert isinstance(found, GivenScores)
            yield found.values[wanted], None
            return
        for start in range(0, len(wanted), self._batch_size):
            chosen = wanted[start : start + self._batch_size]
            # A copy: whatever the function does to it, the scores are those of these.
            returned = self._call(self._function, model, chosen.copy())
            yield self._checked(returned, chosen), margins_in(returned, len(chosen))

    def _call(
        self, function: Callable[..., object], model: object, indices: NDArray[np.intp] | None
    ) -> object:
        given, parameter = native_of(model), self._parameter
        if parameter is None:
            return function(given)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            return function(given, indices)
        return function(given, **{parameter.name: indices})

    def _given(self, returned: object) -> object:
        """Check that a result for all samples has the form of earlier ones."""
        scores = as_scores(returned, in_parts=self.in_parts)
        count = 0 if scores is None else len(scores)
        with self._lock:
            known = self._count
            if known is None:
                # What is no number either is no kind: its receiver says so.
                self._count = count
        if known is not None and known != count:
            raise ValueError(
                f"The evaluation returned {_shown(count)} here, and {_shown(known)} before: the "
                "number must be the same for every model."
            )
        if scores is None:
            return returned
        values = self._checked(scores, np.arange(count))
        return GivenScores(values, self.bounds, self.in_parts, self.higher_is_better)

    def _checked(self, returned: object, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        """The scores of these samples as float64.

        Raises:
            ValueError:
                If they are not one for each, not finite or out of bounds.
        """
        given = as_scores(returned, in_parts=True)
        if given is None or len(given) != len(chosen):
            raise ValueError(
                f"The evaluation was asked for the scores of {len(chosen)} samples "
                f"({self._parameter.name if self._parameter else 'indices'}), but returned "
                f"{_shown(0 if given is None else len(given))}: it must give one score for each, "
                "in their order."
            )
        bounds = self.bounds
        low, high = bounds or (-math.inf, math.inf)
        return valid_scores(
            given,
            bounds,
            not_finite=lambda score, place: (
                f"The evaluation returned {'NaN' if np.isnan(score) else score} as the score of "
                f"sample {chosen[place]}: the score of each sample must be finite."
            ),
            outside=lambda score, place: (
                f"The evaluation returned {score:g} as the score of sample {chosen[place]}, which "
                f"is not between {low:g} and {high:g}: metric_bounds must hold for every sample "
                "and every model."
            ),
        )

    def _try_some(self, model: object, found: GivenScores) -> None:
        """Refuse a function that does not give the scores of the samples that it is asked for."""
        # The highest and the lowest by turns: of samples that are alike no order can be told.
        ranked = np.argsort(found.values, kind="stable")
        half = min(_TRIED, len(ranked)) // 2
        some = ranked[: max(1, 2 * half)].copy()
        some[0::2][:half], some[1::2] = ranked[len(ranked) - half :], ranked[:half]
        scores = self._checked(self._call(for_fp32(self._function), model, some.copy()), some)
        differ = np.abs(scores - found.values[some]) > _SAME * float(np.ptp(found.values))
        if differ.mean() > _MOST_DIFFERENT:
            place = int(np.flatnonzero(differ)[0])
            raise ValueError(
                "The evaluation gives other scores when it is asked for some of the samples: "
                f"sample {some[place]} has {scores[place]:g} as number {place} of {len(some)} "
                f"that were asked for, but {found.values[some[place]]:g} among all of them. It "
                "must give the scores in the order of the samples that it is asked for."
            )


def _shown(count: int) -> str:
    return "one number" if not count else f"{count} score{'' if count == 1 else 's'}"


def _indices_parameter(function: Callable[..., object]) -> inspect.Parameter | None:
    """The parameter with which a function can be asked for some samples; :obj:`None` if none."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # Of some builtins nothing is known.
        return None
    for place, parameter in enumerate(parameters):
        if parameter.name not in _NAMES or not place:
            continue
        # A default of its own has another meaning: such as how many samples to use.
        if parameter.default not in (parameter.empty, None):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY and place != 1:
            continue
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return parameter
    return None
