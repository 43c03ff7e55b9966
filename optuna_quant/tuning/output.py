"""Write the model that was found, and check before the search that this is possible."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import filecmp
import os
from pathlib import Path
import tempfile
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna.logging import get_logger

from optuna_quant._common.atomic_files import locked_directory
from optuna_quant._common.atomic_files import remove_left_over
from optuna_quant.backends.base import HasFileEndings
from optuna_quant.backends.base import ReadsFiles
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.selection.answer import best_met_trial


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.callbacks.exit_policy import ExitPolicy
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

_FILE = "model.onnx"
_OF_TORCH = (".pt", ".pth", ".pt2", ".safetensors")
_USUAL = ".onnx"


OtherFiles: TypeAlias = "Mapping[str, str | os.PathLike[str]]"
"""Files that an output must not be, by what they are."""
NO_FILES: OtherFiles = MappingProxyType({})


def check_output(
    path: str | os.PathLike[str],
    what: str = "output",
    *,
    inputs: OtherFiles = NO_FILES,
    endings: Sequence[str] = (),
) -> Path:
    """Find out now whether a file can be written later.

    Args:
        path:
            The file.
        what:
            What it is, for the message.
        inputs:
            Other files that it must not be, by what they are.
        endings:
            The endings of the backend's own files, see :func:`endings_of`.

    Raises:
        ValueError:
            If it cannot be written, or is one of the other files.
    """
    file = Path(path)
    same = [name for name, other in inputs.items() if _is_same(file, Path(other))]
    if same:
        raise ValueError(f"The {what} {str(file)!r} is the {same[0]} itself; choose another file.")
    problem = None
    if file.is_dir() or os.fspath(path).endswith(("/", os.sep)):
        problem = f"it is a directory; give a file in it, such as {str(file / _FILE)!r}"
    elif what == "output" and _is_of_another(file.suffix, endings):
        ending = endings[0] if endings else _USUAL
        kind = f"files that end with {ending!r}" if endings else "ONNX"
        problem = f"models are saved as {kind}; give {str(file.with_suffix(ending))!r}"
    elif file.exists() and not file.is_file():
        problem = "it exists and is not an ordinary file"
    elif not file.parent.is_dir():
        problem = f"there is no directory {str(file.parent)!r}"
    elif file.exists() and not os.access(file, os.W_OK):
        problem = "the file is write-protected"
    else:
        try:
            with tempfile.TemporaryDirectory(dir=file.parent, prefix=".optuna_quant-"):
                pass
        except OSError as error:
            problem = error.strerror or str(error)
    if problem is not None:
        raise ValueError(f"The {what} {str(file)!r} cannot be written: {problem}.")
    return file


def _is_of_another(suffix: str, endings: Sequence[str]) -> bool:
    """Whether an ending promises another form of file than what the backend writes."""
    return suffix in (*_OF_TORCH, *([_USUAL] if endings else [])) and suffix not in endings


def files_of(backend: Backend) -> Mapping[str, Path]:
    """The files that a backend reads, as far as it tells."""
    return backend.files if isinstance(backend, ReadsFiles) else {}


def endings_of(backend: object) -> Sequence[str]:
    """The endings of files that a backend has for its models; none if these are ONNX files."""
    return backend.file_endings if isinstance(backend, HasFileEndings) else ()


def storage_file(storage: object) -> Path | None:
    """The file that a storage is kept in; :obj:`None` if it is in none, or that cannot be told."""
    if not isinstance(storage, str | os.PathLike):
        return None
    address = os.fspath(storage).removeprefix("journal:").removeprefix("sqlite:///")
    return None if "://" in address else Path(address)


def _is_same(file: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, which need not exist yet."""
    if file.exists() and other.exists():
        return file.samefile(other)
    return os.path.realpath(file) == os.path.realpath(other)


class SaveBest:
    """Callback that keeps the best model so far in a file.

    Only a quantized model that meets the criterion is written. Whatever ends the process, the
    file holds the best that was found until then.

    Args:
        path:
            The file.
        backend:
            Builds the models.
        space:
            The tuning space of the study.
        policy:
            The exit policy of the study: it knows the criterion, and what is best.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        backend: Backend,
        space: TuningSpace,
        policy: ExitPolicy,
    ) -> None:
        self._path = check_output(path, inputs=files_of(backend), endings=endings_of(backend))
        self._backend = backend
        self._space = space
        self._policy = policy
        self._written: int | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write the best model if it is another one than before."""
        best = best_met_trial(study, self._policy.criterion, self._policy.objective)
        if best is None or best.number == self._written:
            return
        try:
            self.write(best)
        except (OSError, ValueError) as error:
            # The search is worth more than this copy; the record has what it takes to build it.
            _logger.warning(f"The best model so far could not be written: {error}")

    def discard(self, refuted: FrozenTrial) -> None:
        """Remove what was written: it has turned out not to meet the criterion.

        Args:
            refuted:
                The trial of the model. If an earlier process has written this one, it is removed
                as well; another file is left alone.
        """
        if self._written is None and not self._is_there(refuted):
            return
        self._path.unlink(missing_ok=True)
        with locked_directory(self._path.parent):
            remove_left_over(self._path, keep=None)
        self._written = None

    def _is_there(self, trial: FrozenTrial) -> bool:
        """Whether the file is the model of a trial."""
        if not self._path.is_file():
            return False
        try:
            model = rebuild(trial, backend=self._backend, space=self._space)
            with tempfile.TemporaryDirectory(
                dir=self._path.parent, prefix=".optuna_quant-"
            ) as folder:
                copy = Path(folder, self._path.name)
                model.save(copy)
                return filecmp.cmp(copy, self._path, shallow=False)
        except (OSError, ValueError) as error:
            _logger.warning(f"Cannot tell whether {str(self._path)!r} is that model: {error}")
            return False

    def write(self, best: FrozenTrial) -> None:
        """Write the model of a trial, unless it is the one that was written last.

        Raises:
            ValueError:
                If the model that is built now is another one than the trial has evaluated.
        """
        if best.number != self._written:
            rebuild(best, backend=self._backend, space=self._space).save(self._path)
            self._written = best.number
