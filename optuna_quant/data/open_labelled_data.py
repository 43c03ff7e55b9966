"""Labelled data as users give them, ready to be read."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.data.array_files import read_npy
from optuna_quant.data.array_files import read_npz
from optuna_quant.data.labelled_data import EVALUATION_DATA
from optuna_quant.data.labelled_data import ArrayData
from optuna_quant.data.labelled_data import LabelledData
from optuna_quant.data.labelled_dataset import DatasetData
from optuna_quant.data.loaders import is_indexable


if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_labelled_data(source: object) -> LabelledData:
    """Return labelled data as users give them, ready to be read.

    Args:
        source:
            A dict of arrays; a path to an ``.npz`` file, which is read as a whole; a path to a
            folder with one ``.npy`` file for each array, which are mapped and not read; or an
            object with ``__len__`` and ``__getitem__`` that gives one sample, see
            :class:`DatasetData`. Arrays have the samples along the first axis.

    Raises:
        TypeError:
            If it is none of these.
        ValueError:
            If a file cannot be read.
    """
    if isinstance(source, LabelledData):
        return source
    if isinstance(source, Mapping):
        return ArrayData(source)
    if isinstance(source, str | os.PathLike):
        where = f"{EVALUATION_DATA} {os.fspath(source)!r}"
        return ArrayData(_load(Path(source)), where)
    if not is_indexable(source):
        raise TypeError(
            "Evaluation data must be a dict of arrays, a path to an .npz file or to a folder of "
            ".npy files, or a dataset with __len__ and __getitem__, but got "
            f"{type(source).__name__}."
        )
    return DatasetData(source)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    if path.is_dir():
        return _load_folder(path)
    if path.suffix != ".npz":
        raise ValueError(
            "Evaluation data must be an .npz file or a folder of .npy files, but got "
            f"{str(path)!r}."
        )
    try:
        return dict(read_npz(path, "The evaluation data"))
    except FileNotFoundError:
        raise ValueError(f"There is no file {str(path)!r}.") from None


def _load_folder(folder: Path) -> dict[str, NDArray[Any]]:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise ValueError(
            f"There is no .npy file in the folder {str(folder)!r}: save one there for each "
            "input of the model, under the input's name, and one for the labels; or put images "
            "there, in a folder for each class."
        )
    return {file.stem: read_npy(file, "The evaluation data") for file in files}
