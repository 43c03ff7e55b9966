"""The quantized program of a configuration, as the rest of the library runs and saves it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant._common.steps import doing
from optuna_quant.backends.base import ModelLoadError
from optuna_quant.backends.torch.candidates.simulated import array_of
from optuna_quant.backends.torch.candidates.simulated import check_names
from optuna_quant.backends.torch.converted.saving import save_package
from optuna_quant.backends.torch.converted.saving import save_program
from optuna_quant.backends.torch.converted.state_files import SavedState
from optuna_quant.backends.torch.converted.state_files import write_state
from optuna_quant.backends.torch.graph.switched import tensor_of
from optuna_quant.backends.torch.program.called import CalledProgram


if TYPE_CHECKING:
    from collections.abc import Mapping
    import os

    from numpy.typing import NDArray

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
    from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
    from optuna_quant.backends.torch.converted.lowering import LoweredProgram


class TorchModel:
    """A quantized program: a :class:`~optuna_quant.backends.base.Model`.

    It is converted when it is first run or saved. It runs with this machine's integer kernels,
    where torchao is installed; :meth:`compiled` is the form in which it is fastest.

    Args:
        simulated:
            The model of the same configuration that simulates it.
        convert:
            Gives the converted program.
        lower:
            Whether to put in this machine's integer kernels.
        compile:
            Whether to compile it at its first run.
    """

    def __init__(
        self,
        simulated: SimulatedModel,
        convert: Callable[[], ConvertedProgram],
        *,
        lower: bool = True,
        compile: bool = False,
    ) -> None:
        self._simulated = simulated
        self._convert = convert
        self._lower = lower
        self._compile = compile
        self._lock = RLock()
        self._watch: Callable[[Feed], None] | None = None
        self.plan = simulated.plan
        self.inputs = simulated.inputs
        self.outputs = simulated.outputs
        self.nbytes = simulated.nbytes
        self.depends_on_batch = simulated.depends_on_batch

    @property
    def simulated(self) -> SimulatedModel:
        """The simulation of the same model in floats."""
        return self._simulated

    @property
    def fingerprint(self) -> str:
        """A content hash of what it computes."""
        return self._simulated.fingerprint

    @property
    def threads(self) -> int:
        """The threads of a run."""
        return torch.get_num_threads()

    @cached_property
    def converted(self) -> ConvertedProgram:
        """The program in PyTorch's reference form, exported."""
        with self._lock:
            known: ConvertedProgram | None = self.__dict__.get("converted")
            if known is not None:
                return known
            with doing("Converting the model for PyTorch"):
                return self._convert()

    @cached_property
    def program(self) -> LoweredProgram:
        """The program as it runs here.

        Raises:
            ModelLoadError:
                If PyTorch does not take it.
        """
        with self._lock:
            if "program" in self.__dict__:  # Another thread was first.
                return self.__dict__["program"]  # type: ignore[no-any-return]
            try:
                converted = self.converted
                with doing("Putting integer kernels into the model"):
                    return converted.loaded(lower=self._lower)
            except Exception as error:
                raise ModelLoadError(
                    "PyTorch does not take the quantized program: "
                    f"{str(error) or type(error).__name__}"
                ) from error

    @cached_property
    def _function(self) -> Callable[..., Sequence[Any]]:
        with self._lock:
            if "_function" in self.__dict__:
                return self.__dict__["_function"]  # type: ignore[no-any-return]
            if self._compile:
                return self.converted.compiled()
            # In floats it is the exported program itself.
            is_float = not self.plan.ops and self._simulated.device.type == "cpu"
            return self._simulated.graph if is_float else self.program.graph

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """Compute outputs.

        Args:
            feed:
                An array for each input, by the input's name.
            outputs:
                The names of the outputs to compute; None for all.

        Raises:
            ModelLoadError:
                If PyTorch does not take the program.
            ValueError:
                If an input is missing or there is no such output.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        check_names(names, self.outputs, "output")
        check_names([spec.name for spec in self.inputs], feed, "input")
        found = self._outputs(self.flat_inputs(feed))
        return [array_of(found[name]) for name in names]

    def flat_inputs(self, feed: Feed) -> list[Any]:
        """What the program is called with, for an array of each input."""
        return self._on_cpu({spec.name: tensor_of(feed[spec.name]) for spec in self.inputs})

    def _on_cpu(self, tensors: Mapping[str, Any]) -> list[Any]:
        """The arguments of the program; copies if it may write into them."""
        copies = self._simulated.writes
        given = {
            name: each.to("cpu", copy=copies) if isinstance(each, torch.Tensor) else each
            for name, each in tensors.items()
        }
        return self._simulated.form.flat_inputs(given)

    def compute(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, for the inputs by name."""
        if self._watch is not None:
            given = {n: t for n, t in tensors.items() if isinstance(t, torch.Tensor)}
            self._watch({name: array_of(each) for name, each in given.items()})
        return self._outputs(self._on_cpu(tensors))

    def _outputs(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            outputs = self._function(*inputs)
        return self._simulated.form.named_outputs(outputs)

    @cached_property
    def _called(self) -> CalledProgram:
        return CalledProgram(self.compute, self._simulated.form, self.inputs)

    def native(self) -> CalledProgram:
        """The model as a module, which takes and returns what the user's module does."""
        return self._called

    @contextmanager
    def showing_inputs(self, watch: Callable[[Feed], None]) -> Iterator[None]:
        """Show what the module is called with, while it lasts.

        Args:
            watch:
                Called with the arrays of each call, by the inputs' names.
        """
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

    def compiled(self) -> TorchModel:
        """The same model, compiled at its first run, where there is a C++ compiler."""
        with self._lock:
            return TorchModel(self._simulated, lambda: self.converted, compile=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the converted program to a file, which is replaced as a whole or left as it was.

        :func:`optuna_quant.backends.torch.load` reads it.
        """
        save_program(self.converted, path)

    def save_package(self, path: str | os.PathLike[str]) -> None:
        """Compile the program ahead of time, for this kind of processor.

        :func:`optuna_quant.backends.torch.load` reads the package. It runs without Python as well.

        Args:
            path:
                The file, which ends with ``".pt2"``; it is replaced as a whole.

        Raises:
            RuntimeError:
                If there is no C++ compiler.
            ValueError:
                If the path does not end with ``".pt2"``.
        """
        save_package(self.converted, path)

    def save_state_dict(self, path: str | os.PathLike[str]) -> None:
        """Write the integers, scales and floats of the program, with its configuration.

        :func:`optuna_quant.backends.torch.load` makes the program again of it and a module of the
        same code. :func:`torch.load` gives a dictionary with ``"state_dict"``, whose names are the
        paths of the module's parameters, and ``"configuration"``, the JSON text of the
        configuration.

        Args:
            path:
                The file, which is replaced as a whole.
        """
        write_state(SavedState.of(self.converted, self._simulated), path)
