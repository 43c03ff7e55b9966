"""A folder of images as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant._common.extras import install_hint


if TYPE_CHECKING:
    from PIL.Image import Image


_logger = get_logger(__name__)

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)


def is_image_folder(folder: Path) -> bool:
    """Whether there are images in a folder, or in the folders in it."""
    return any(_images(folder)) or any(_images(inner) for inner in _folders(folder))


class ImageFolder:
    """The images in a folder, with a subfolder for each class, or without classes.

    The classes are numbered from 0 on in the alphabetical order of their folders, as torchvision
    and Keras number them. With subfolders a sample is a pair of an image and its class, without
    any it is an image. Images are opened with Pillow when they are asked for, in RGB.

    Args:
        folder:
            The folder.

    Raises:
        ImportError:
            If Pillow is not installed.
        ValueError:
            If there are no images, or images beside folders of images.

    Attributes:
        classes:
            The names of the classes, in the order of their numbers; empty without subfolders.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"To read the images in {str(folder)!r} Pillow is needed: "
                f"{install_hint('images')}."
            ) from error
        flat = _images(folder)
        inner = [each for each in _folders(folder) if flat == [] or _images(each)]
        self.classes = tuple(each.name for each in inner)
        self._files: list[tuple[Path, int | None]] = [(file, None) for file in flat]
        if flat and inner:
            raise ValueError(
                f"The folder {str(folder)!r} holds images ({flat[0].name}, ...) as well as "
                f"folders of images ({inner[0].name}, ...): put all of them into folders, one "
                "for each class, or none."
            )
        for number, each in enumerate(inner):
            self._files += [(file, number) for file in _images(each)]
        if not self._files:
            raise ValueError(
                f"There are no images in {str(folder)!r}: images are files that end with "
                f"{', '.join(sorted(_SUFFIXES))}."
            )
        if _are_numbers_in_other_order(self.classes):
            first = ", ".join(f"{i} is {name!r}" for i, name in enumerate(self.classes[:3]))
            _logger.warning(
                f"The folders of {str(folder)!r} are numbered in alphabetical order, as in "
                f"torchvision and Keras: class {first}. If the model's classes are the numbers "
                "in the names, pad these with zeros."
            )

    @property
    def files(self) -> tuple[tuple[Path, int | None], ...]:
        """Each image, with the number of its class if there are classes."""
        return tuple(self._files)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Image, int] | Image:
        """An image, with the number of its class if there are classes.

        Raises:
            ValueError:
                If the file cannot be read.
        """
        import PIL.Image

        file, number = self._files[index]
        try:
            with PIL.Image.open(file) as opened:
                image: Any = opened.convert("RGB")
        except Exception as error:
            raise ValueError(f"The image {str(file)!r} cannot be read: {error}") from error
        return image if number is None else (image, number)


def _images(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def _are_numbers_in_other_order(names: tuple[str, ...]) -> bool:
    if not all(name.isdecimal() for name in names):
        return False
    return list(names) != sorted(names, key=int)
