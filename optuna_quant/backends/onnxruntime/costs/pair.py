"""Two ONNX models that are run on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnxruntime

from optuna_quant.backends.onnxruntime.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime.calibration.data import input_specs
from optuna_quant.backends.onnxruntime.calibration.data import optional_input_specs
from optuna_quant.backends.onnxruntime.model.model import external_location
from optuna_quant.backends.onnxruntime.model.model import external_tensors
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
from optuna_quant.backends.onnxruntime.model.session_model import SessionModel
from optuna_quant.costs.comparison import OutputAgreement
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.data.random_inputs import random_feed


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.calibration.feeds import Feed
    from optuna_quant.data.inputs import InputSpec


@dataclass(frozen=True, eq=False)
class FeedOf:
    """Inputs of a run.

    Args:
        feed:
            An array for each input.
        samples:
            How many samples these are.
    """

    feed: Feed
    samples: int


class ModelPair:
    """Two models with the same inputs.

    Args:
        first:
            The path of the first model.
        second:
            That of the second one.
        threads:
            The threads of a run; None for all cores.
        providers:
            The execution providers; None for the processor.

    Attributes:
        models:
            The models.
        nbytes:
            The size of each file, external data included.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ValueError:
            If a file is no model that loads, or the inputs differ.
    """

    def __init__(
        self,
        first: str | os.PathLike[str],
        second: str | os.PathLike[str],
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        maker = SessionMaker(providers or ("CPUExecutionProvider",), options)
        sessions, sizes, protos = [], [], []
        for path in (first, second):
            source = load_model(os.fspath(path))
            protos.append(source.proto)
            sizes.append(_file_bytes(Path(path)))
            try:
                sessions.append(maker.make(source.proto, source.base_dir))
            except Exception as error:
                raise ValueError(
                    f"ONNX Runtime does not load {os.fspath(path)!r}: {str(error).rstrip('.')}."
                ) from error
        self._proto = protos[0]
        _check_same_inputs([input_specs(proto) for proto in protos], (first, second))
        self.models = tuple(map(SessionModel, sessions))
        self.nbytes = tuple(sizes)

    def runs(self, feed: Feed) -> list[Callable[[], object]]:
        """A run of each."""
        return [partial(model.run, feed) for model in self.models]

    def feeds(
        self,
        *,
        calibration_data: object,
        preview: Callable[[Any, int], list[dict[str, Any]]] | None,
        inputs: Mapping[str, Any] | None,
        transform: Callable[[Any], Any] | None,
        batch: int,
        samples: int,
        seed: int,
    ) -> tuple[list[FeedOf], str]:
        """What to run the models on.

        Args:
            calibration_data:
                Samples; None if there are none.
            preview:
                Gives a few samples of labelled data for a model; None if there are none.
            inputs:
                Inputs that are the same for all samples.
            transform:
                Makes inputs of samples.
            batch:
                How many samples a run has.
            samples:
                How many are enough.
            seed:
                Of random inputs.

        Returns:
            At least one feed, and where they come from.

        Raises:
            ValueError:
                If the data do not fit, or random inputs cannot be made.
        """
        specs = input_specs(self._proto)
        bound = ConstantInputs(inputs).bind(specs, optional_input_specs(self._proto))
        given, source = calibration_data, "calibration data"
        if given is None and preview is not None:
            found = preview(self.models[0], samples)
            if found:
                given, source = found[0], "evaluation data"
                transform = None  # That has been done.
        if given is None:
            random = random_feed(bound.varying(specs), batch, seed)
            return [FeedOf({**random, **bound.feed(batch)}, batch)], "random inputs"
        data = CalibrationData(
            given, specs, batch_size=batch, constants=bound, transform=transform
        )
        feeds: list[FeedOf] = []
        # Cut where the data come in larger batches.
        for piece in data.pieces(range(batch, max(batch, samples) + 1, batch)):
            feeds.append(FeedOf(piece.feed, piece.samples))
        return feeds, source

    def agreement(self, feeds: Sequence[Feed]) -> tuple[OutputAgreement, ...]:
        """How far the outputs agree on some inputs.

        Outputs are the same by name, or by position where no name is in both models.

        Args:
            feeds:
                The inputs.
        """
        names = [model.outputs for model in self.models]
        pairs = [(name, name) for name in names[0] if name in names[1]]
        pairs = pairs or list(zip(*names, strict=False))
        found: dict[str, list[_Difference]] = {}
        for feed in feeds:
            a, b = (
                model.run(feed, [pair[i] for pair in pairs]) for i, model in enumerate(self.models)
            )
            for (name, _), x, y in zip(pairs, a, b, strict=True):
                found.setdefault(name, []).append(_difference(x, y))
        return tuple(_agreement(name, parts) for name, parts in found.items())


def _file_bytes(path: Path) -> int:
    import onnx

    proto = onnx.load(path, load_external_data=False)
    external = sum(external_location(t, path.parent).length for t in external_tensors(proto))
    return path.stat().st_size + external


def _check_same_inputs(
    specs: Sequence[Sequence[InputSpec]], paths: Sequence[str | os.PathLike[str]]
) -> None:
    first, second = ({spec.name: spec for spec in each} for each in specs)
    for name in {**first, **second}:
        if name not in first or name not in second:
            have, lack = paths if name in first else (paths[1], paths[0])
            raise ValueError(
                f"The models have different inputs: only {os.fspath(have)!r} has {name!r}; the "
                f"inputs of {os.fspath(lack)!r} are {list(second if name in first else first)}."
            )
        a, b = first[name], second[name]
        shapes_differ = (
            a.shape is not None
            and b.shape is not None
            and (
                len(a.shape) != len(b.shape)
                or any(
                    isinstance(x, int) and isinstance(y, int) and x != y
                    for x, y in zip(a.shape, b.shape, strict=True)
                )
            )
        )
        if a.dtype != b.dtype or shapes_differ:
            one, other = (os.fspath(path) for path in paths)
            raise ValueError(
                f"The models have different inputs: {name!r} is {a} in {one!r} and {b} in "
                f"{other!r}."
            )


@dataclass(frozen=True)
class _Difference:
    """Sums over the values of an output: its own squares, those of the difference, classes."""

    comparable: bool
    squares: float = 0.0
    difference: float = 0.0
    positions: int = 0
    same: int = 0


def _difference(x: NDArray[Any], y: NDArray[Any]) -> _Difference:
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape or x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        return _Difference(False)
    a, b = x.astype(np.float64), y.astype(np.float64)
    positions = same = 0
    if x.dtype.kind != "f":
        positions, same = x.size, int(np.sum(x == y))
    elif x.ndim >= 2 and x.shape[_class_axis(x)] >= 2:
        axis = _class_axis(x)
        equal = a.argmax(axis) == b.argmax(axis)
        positions, same = equal.size, int(equal.sum())
    return _Difference(True, float((a**2).sum()), float(((a - b) ** 2).sum()), positions, same)


def _class_axis(output: NDArray[Any]) -> int:
    """The axis of the classes: the last one, or the second one of images."""
    return 1 if output.ndim >= 4 and output.shape[1] <= output.shape[-1] else -1


def _agreement(name: str, parts: Sequence[_Difference]) -> OutputAgreement:
    if not all(part.comparable for part in parts):
        return OutputAgreement(name, None, None)
    squares = sum(part.squares for part in parts)
    difference = sum(part.difference for part in parts)
    error = float(np.sqrt(difference / squares)) if squares > 0 else float(difference > 0)
    positions = sum(part.positions for part in parts)
    same = sum(part.same for part in parts)
    return OutputAgreement(name, error, same / positions if positions else None)
