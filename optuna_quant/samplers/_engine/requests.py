"""The requests that a plan can yield, and the results that it receives."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.space.config import QuantConfig
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Stage:
    """A batch of configurations that a strategy wants evaluated before it continues.

    Args:
        name:
            What it is for; shown to people and kept in each trial.
        configs:
            The configurations, in the order in which they are to be evaluated.
        provisional:
            Whether a configuration of this stage that meets the criterion is not yet the answer
            of the strategy. Where samples are evaluated one by one, it is then evaluated only
            until it surely fails or probably meets the criterion; otherwise to the end, unless
            it surely fails.
    """

    name: str
    configs: Sequence[QuantConfig]
    provisional: bool = False

    @property
    def fidelity(self) -> Fidelity:
        """How far the configurations are evaluated."""
        return DECIDED if self.provisional else FULL


@dataclass(frozen=True)
class Evaluation:
    """The result of a configuration that a stage asked for.

    Args:
        config:
            The configuration.
        score:
            The metric, turned so that higher is better; minus infinity if there is none, because
            the evaluation failed.
        value:
            The metric itself, or :obj:`None`.
        met:
            Whether the criterion is met; :obj:`None` if that is unknown. Of a configuration not
            evaluated on all samples: :obj:`False` if it surely fails, :obj:`True` if it
            probably meets the criterion.
        number:
            The number of the trial; :obj:`None` for a guess.
        scores:
            The normalized scores of the samples that were seen, in the order of evaluation;
            :obj:`None` if they are not known.
    """

    config: QuantConfig
    score: float
    value: float | None = None
    met: bool | None = None
    number: int | None = None
    scores: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Race:
    """A batch of configurations that a strategy wants ranked.

    Where samples are evaluated one by one, all are evaluated on the same few, the better half of
    them on more, and so on; see :func:`optuna_quant.sequential.race.survivors` for what that
    promises. Otherwise all are evaluated in full. What the plan is sent are estimates then; of a
    configuration that went out, the score is at most that of the ones that went on.

    Args:
        name:
            What it is for; shown to people and kept in each trial.
        configs:
            The configurations.
        top_k:
            How many of the best matter.
        rounds:
            The most rounds, each of which sees twice as many samples as the one before.
        fraction:
            The fraction of the samples that the last round sees.
        error_probability:
            The probability that one of the best goes out for being surely worse.
    """

    name: str
    configs: Sequence[QuantConfig]
    top_k: int = 1
    rounds: int = 4
    fraction: float = 1 / 8
    error_probability: float = 0.05

    @property
    def provisional(self) -> bool:
        """Nothing in it is an answer."""
        return True

    @property
    def fidelity(self) -> Fidelity:
        """How far the configurations are evaluated where single samples are not known."""
        return FULL


@dataclass(frozen=True)
class Scoring:
    """Request for the sensitivities of ops, as ``{op: score}``.

    Args:
        config:
            The configuration whose ops are scored.
        ops:
            The ops.
    """

    config: QuantConfig
    ops: tuple[str, ...]


@dataclass(frozen=True)
class HasPerSampleScores:
    """Request for whether samples are evaluated one by one.

    To be asked after a first stage: before the baseline is known that is not known.
    """


Request: TypeAlias = "Stage | Race | Scoring | HasPerSampleScores"
Plan: TypeAlias = Generator[Request, Any, None]
Evaluate: TypeAlias = Callable[["QuantConfig", Fidelity], "Evaluation | None"]
Guess: TypeAlias = Callable[[Stage | Race, Mapping[str, Evaluation], QuantConfig], Evaluation]
