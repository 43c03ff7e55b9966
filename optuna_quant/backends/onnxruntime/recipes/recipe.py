"""What a recipe is, and the kinds of recipes by how they take part in building a candidate."""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import MutableMapping
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import ClassVar
from typing import TypeVar
from typing import cast

from optuna_quant.backends.onnxruntime.recipes.labels import OFF
from optuna_quant.backends.onnxruntime.recipes.labels import ON


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    import onnxruntime

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
    from optuna_quant.space.config import QuantConfig


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a recipe is told of a model before it is offered.

    Args:
        graph:
            The model in normal form.
        static:
            The ops that can be quantized statically, by name.
        approach:
            The approach of the backend.
        has_data:
            Whether there are calibration data.
        profile:
            What the target runs, and how it wants a model written.
        level:
            How far sessions optimize graphs without the recipe for that.
    """

    graph: Graph
    static: Mapping[str, StaticOp]
    approach: str
    has_data: bool
    profile: TargetProfile
    level: onnxruntime.GraphOptimizationLevel


@dataclass(frozen=True, kw_only=True)
class RunsGraphs:
    """What a recipe runs a graph with that it wants to learn something about.

    Args:
        calibration:
            The calibration data; None if there are none.
        sessions:
            Says with which providers and options.
        size:
            How many samples from the start of the data; None for all.
        memory:
            What was learnt about the graph before, with the same data.
        decisions:
            What the recipe has decided about the graph by the data, here or in another process;
            empty if nothing yet.
    """

    calibration: CalibrationData | None
    sessions: SessionMaker
    size: int | None = None
    memory: MutableMapping[object, object] = field(default_factory=dict)
    decisions: list[NDArray[np.float64]] = field(default_factory=list)

    def remembered(self, name: object, learn: Callable[[], T]) -> T:
        """What ``learn`` gives, the first time.

        Args:
            name:
                What it is called.
            learn:
                Finds it out.
        """
        if name not in self.memory:
            self.memory[name] = learn()
        return cast("T", self.memory[name])

    def decided(
        self, decide: Callable[[], list[NDArray[np.float64]]]
    ) -> list[NDArray[np.float64]]:
        """What ``decide`` gives, the first time: all that the rewrite depends on the data for.

        Args:
            decide:
                Looks at the data.
        """
        if not self.decisions:
            self.decisions.extend(decide())
        return self.decisions


class Recipe(abc.ABC):
    """A method for the whole model that has a few values, which are labels.

    Attributes:
        name:
            Its name, of which the study's parameter is made.
        default:
            The value of configurations that do not name it. The user's model is what this value
            gives where nothing is quantized.
        arguments:
            The names of the settings that a user may give beside it, as ``NAME_args``.
        in_all:
            Whether it is among the recipes if a user asks for all: not if it is chosen for where
            the model will run, and not for its accuracy.
        lowers_errors:
            Whether it is chosen for smaller errors of the same ops, so that ops are scored with
            it: that tells what it gains. Otherwise they are scored as if it had its default.
        is_free:
            Whether it changes the values of constants and nothing else, so that a candidate takes
            the same time with it. Then that is not measured.
    """

    name: ClassVar[str]
    default: ClassVar[str] = OFF
    arguments: ClassVar[tuple[str, ...]] = ()
    in_all: ClassVar[bool] = True
    lowers_errors: ClassVar[bool] = False
    is_free: ClassVar[bool] = False

    @abc.abstractmethod
    def offered(self, args: Mapping[str, object]) -> tuple[str, ...]:
        """The values to choose from where a user names the recipe; the default one first.

        Args:
            args:
                What the user set beside it.

        Raises:
            ValueError:
                If a setting has a value that is none; the message begins with its name.
        """

    def switched_on(self, args: Mapping[str, object]) -> tuple[str, ...]:
        """The values that the user's ``True`` stands for: several if there is a list to tune.

        For the argument and errors see :meth:`offered`.
        """
        return (self.offered(args)[-1],)

    def choices(self, given: object) -> Sequence[object]:
        """The values to choose from that a user gives, each as a truth value or a text.

        Args:
            given:
                What the user gives for this recipe: a value, or a list of them.

        Raises:
            ValueError:
                If it is none.
        """
        return given if isinstance(given, list | tuple) else [given]

    @abc.abstractmethod
    def check(self, value: str) -> None:
        """Refuse what is no value of this recipe.

        Raises:
            ValueError:
                If it is none; the message says what there is.
        """

    def reason_against(self, facts: ModelFacts) -> str | None:
        """Why the recipe changes nothing in a model; None if it may change something."""
        return None

    def usual(self, facts: ModelFacts) -> tuple[str, ...]:
        """The values to choose from where the user leaves that open; the default one first.

        Args:
            facts:
                What is known of the model. The recipe may change something in it.

        Returns:
            The values; empty if nothing in the model's structure suggests the recipe.
        """
        return ()

    def distinct(self, values: tuple[str, ...], facts: ModelFacts) -> tuple[str, ...]:
        """Values that may make different models, in the place of those that a user asks for.

        Args:
            values:
                The values, the default first if it is among them.
            facts:
                What is known of the model. The recipe may change something in it.
        """
        return values


class Switch(Recipe):
    """A recipe that is ``"off"`` or ``"on"``."""

    def offered(self, args: Mapping[str, object]) -> tuple[str, ...]:
        return (OFF, ON) if self.default == OFF else (ON, OFF)

    def switched_on(self, args: Mapping[str, object]) -> tuple[str, ...]:
        return (ON,)

    def check(self, value: str) -> None:
        if value not in (OFF, ON):
            raise ValueError("its values are 'off' and 'on'")


class ConfigRecipe(Recipe):
    """A recipe that changes which options ops have."""

    @abc.abstractmethod
    def float_ops(self, graph: Graph) -> frozenset[str]:
        """The ops that any value but the default keeps in FP32.

        Args:
            graph:
                The user's model in normal form.
        """

    @abc.abstractmethod
    def configured(self, config: QuantConfig, value: str, graph: Graph) -> QuantConfig:
        """The configuration that is built in place of another.

        Args:
            config:
                The configuration, with this recipe at ``value``.
            value:
                The value, which is not the default.
            graph:
                The user's model in normal form.
        """


class GraphRecipe(Recipe):
    """A recipe that rewrites the FP32 graph and leaves its function as it is, to rounding.

    Nodes keep their names, and so do the tensors that they give, whatever scale those are on; a
    new constant gets a new name, so that what is known of the old one stays true.
    """

    @abc.abstractmethod
    def rewrite(self, graph: Graph, value: str, runs: RunsGraphs) -> Graph:
        """The graph that is quantized in place of another, which is not changed.

        Args:
            graph:
                The graph, as the recipes before this one have left it.
            value:
                The value, which is not the default.
            runs:
                What to run it with, if something has to be measured.
        """

    def uses_data(self, value: str) -> bool:
        """Whether :meth:`rewrite` runs the graph, so that its result depends on the data.

        Then all that it takes from them are its :meth:`RunsGraphs.decided`, which other processes
        are given.
        """
        return False


class WriterRecipe(Recipe):
    """A recipe that changes how candidates are written."""

    @abc.abstractmethod
    def written(self, options: WriteOptions, value: str) -> WriteOptions:
        """How a candidate is written.

        Args:
            options:
                How it would be written without this recipe.
            value:
                The value, which is not the default.
        """


class SessionRecipe(Recipe):
    """A recipe that changes how a candidate is run."""

    @abc.abstractmethod
    def sessions(self, sessions: SessionMaker, value: str) -> SessionMaker:
        """What makes the sessions of candidates with this value; what it changes is kept.

        Its value is a part of the fingerprint of a candidate.

        Args:
            sessions:
                What makes sessions without this recipe.
            value:
                The value, which is not the default.
        """

    def metadata(self, value: str) -> Mapping[str, str]:
        """What is written into the metadata of a candidate's file, for others that run it.

        Args:
            value:
                The value, which is not the default.
        """
        return {}
