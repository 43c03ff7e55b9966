"""A model that a backend has built, as the rest of the library runs, measures and saves it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import TypeAlias
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    import os

    from numpy.typing import NDArray

    from optuna_quant.data.inputs import InputSpec


Feed: TypeAlias = "Mapping[str, NDArray[Any]]"
"""An array for each input of a model, by the input's name."""

NativeModel: TypeAlias = Any
"""The runtime's own object for a model, such as a session or a module; the model if it has none.

Only the user's own function knows its type, so it may name any.
"""


class ModelLoadError(ValueError):
    """The runtime does not load a model that a backend has built; trying again will not help.

    Backends raise it when a model is first used. A trial that ends so is not tried again.
    """


class RunnableModel(Protocol):
    """What a model must be to be evaluated on data: described, and run.

    It may load what runs it late, when it is first described or run. Then it raises
    :class:`ModelLoadError` if that is refused.
    """

    @property
    def inputs(self) -> Sequence[InputSpec]:
        """The inputs that every run must be given, in the model's order."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the outputs, in the model's order; the first one is scored by default."""
        ...

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> Sequence[NDArray[Any]]:
        """Compute outputs.

        Args:
            feed:
                An array for each input, by name.
            outputs:
                The names of the outputs to compute; None for all.

        Returns:
            An array for each of them, in their order.
        """
        ...


class CandidateModel(RunnableModel, Protocol):
    """A model whose evaluation says what a configuration gives."""

    @property
    def nbytes(self) -> int:
        """The size of the model in bytes, as it is saved or close to it."""
        ...

    @property
    def fingerprint(self) -> str:
        """A content hash, the same as the backend's ``fingerprint`` of its configuration."""
        ...


class Model(CandidateModel, Protocol):
    """A model that a backend has built: what :meth:`Backend.quantize` gives."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which is replaced as a whole or left as it was."""
        ...


@runtime_checkable
class HasNative(Protocol):
    """A model that is run by an object of its runtime, such as a session or a module.

    That object is what a function of the user's (``evaluate=``) gets. The function gets the model
    itself if it has none.
    """

    def native(self) -> NativeModel:
        """The runtime's own object, made when it is first asked for.

        Raises:
            ModelLoadError:
                If the runtime does not load the model.
        """
        ...


@runtime_checkable
class ShowsInputs(Protocol):
    """A model that shows what its object of the runtime is called with.

    So it is told if a function of the user's (``evaluate=``) feeds inputs of another scale than
    the calibration data.
    """

    def showing_inputs(self, watch: Callable[[Feed], None]) -> AbstractContextManager[None]:
        """Show what :meth:`HasNative.native` is called with, while the context lasts.

        Args:
            watch:
                Called with the arrays of each call, by the inputs' names, before it is computed.
                It keeps copies if it keeps anything.
        """
        ...


@runtime_checkable
class MayDependOnBatch(Protocol):
    """A model that tells whether the samples of a batch influence each other.

    They do if the ranges of activations are found at run time. Such a model is evaluated one
    sample at a time by default.
    """

    @property
    def depends_on_batch(self) -> bool:
        """Whether what it gives for a sample depends on the other samples of the batch."""
        ...


@runtime_checkable
class HasOptionalInputs(Protocol):
    """A model with inputs that have a default value and may be left out of a feed."""

    @property
    def optional_inputs(self) -> Sequence[InputSpec]:
        """Those inputs; they are not among ``inputs``."""
        ...


@runtime_checkable
class RunsConcurrently(Protocol):
    """A model that is to be told how many runs share the cores."""

    def for_concurrent_runs(self, runs: int) -> RunnableModel:
        """The same model, prepared for this number of simultaneous runs."""
        ...


@runtime_checkable
class HasThreads(Protocol):
    """A model that tells with how many threads a run computes."""

    @property
    def threads(self) -> int:
        """The number of threads."""
        ...


@runtime_checkable
class CompilesForUse(Protocol):
    """A model that is compiled before it is used, which takes longer than to evaluate it.

    What its runs take is measured after that.
    """

    def compiled(self) -> RunnableModel:
        """The same model, compiled; itself where there is no compiler."""
        ...


def as_used(model: RunnableModel) -> RunnableModel:
    """A model in the form whose times count."""
    return model.compiled() if isinstance(model, CompilesForUse) else model


def native_of(model: object) -> NativeModel:
    """What a function of the user's gets for a model: the runtime's object, else the model."""
    return model.native() if isinstance(model, HasNative) else model


def depends_on_batch(model: object) -> bool:
    """Whether a model says that the samples of a batch influence each other."""
    return isinstance(model, MayDependOnBatch) and model.depends_on_batch
