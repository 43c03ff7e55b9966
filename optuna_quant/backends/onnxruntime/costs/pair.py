"""Two ONNX models that are run on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.model.input_specs import optional_input_specs
from optuna_quant.backends.onnxruntime.model.model import SourceModel
from optuna_quant.backends.onnxruntime.model.model import external_location
from optuna_quant.backends.onnxruntime.model.model import external_tensors
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.model.session_model import SessionModel
from optuna_quant.costs.comparison import RANDOM_INPUTS
from optuna_quant.costs.model_pair import FeedOf
from optuna_quant.costs.model_pair import agreement
from optuna_quant.costs.model_pair import check_same_inputs
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.data.random_inputs import random_feed


if TYPE_CHECKING:
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.costs.comparison import OutputAgreement
    from optuna_quant.costs.model_pair import Preview
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform


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
        names:
            The paths.

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
        maker = _maker(threads, providers)
        sessions, sizes, protos = [], [], []
        for path in (first, second):
            source = load_model(os.fspath(path))
            protos.append(source.proto)
            sizes.append(file_bytes(Path(path)))
            sessions.append(_session(maker, source, path))
        self._proto = protos[0]
        self.names = (os.fspath(first), os.fspath(second))
        check_same_inputs([input_specs(proto) for proto in protos], list(map(repr, self.names)))
        self.models = tuple(map(SessionModel, sessions))
        self.nbytes = tuple(sizes)

    def runs(self, feed: Feed) -> list[Callable[[], object]]:
        """A run of each."""
        return [partial(model.run, feed) for model in self.models]

    def feeds(
        self,
        *,
        calibration_data: object,
        preview: Preview | None,
        inputs: InputValues | None,
        transform: Transform | None,
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
            return [FeedOf({**random, **bound.feed(batch)}, batch)], RANDOM_INPUTS
        data = CalibrationData(
            given, specs, batch_size=batch, constants=bound, transform=transform
        )
        feeds: list[FeedOf] = []
        # Cut where the data come in larger batches.
        for piece in data.pieces(range(batch, max(batch, samples) + 1, batch)):
            feeds.append(FeedOf(piece.feed, piece.samples))
        return feeds, source

    def agreement(self, feeds: Sequence[Feed]) -> tuple[OutputAgreement, ...]:
        """How far the outputs agree on some inputs, see the function of this name."""
        return agreement(self.models, feeds)


def load_session(
    path: str | os.PathLike[str], *, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A model file as a session on the processor.

    Args:
        path:
            The path.
        threads:
            The threads of a run; None for all cores.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ValueError:
            If it is no model that loads.
    """
    return _session(_maker(threads), load_model(os.fspath(path)), path)


def _maker(threads: int | None, providers: Sequence[str] | None = None) -> SessionMaker:
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    return SessionMaker(providers or ("CPUExecutionProvider",), options)


def _session(
    maker: SessionMaker, source: SourceModel, path: str | os.PathLike[str]
) -> onnxruntime.InferenceSession:
    try:
        return maker.make(source.proto, source.base_dir)
    except Exception as error:
        raise ValueError(
            f"ONNX Runtime does not load {os.fspath(path)!r}: {str(error).rstrip('.')}."
        ) from error


def file_bytes(path: Path) -> int:
    """The size of a model file, external data included.

    Args:
        path:
            The path.
    """
    import onnx

    proto = onnx.load(path, load_external_data=False)
    external = sum(external_location(t, path.parent).length for t in external_tensors(proto))
    return path.stat().st_size + external
