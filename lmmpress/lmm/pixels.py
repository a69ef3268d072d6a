"""The pictures of a split as the vision tower takes them, decoded when they are asked for."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lmmpress.data import Row, Split, open_image
from lmmpress.errors import UserError
from lmmpress.lmm.compatibility import fitted
from lmmpress.lmm.processor import PASSED_ON

_KEPT = 256 << 20
"""Bytes of pixels that are kept, so that few pictures are decoded once and not in every epoch. The first ones are: an
order that is shuffled anew gains nothing from the last ones."""


Images = torch.Tensor | list[torch.Tensor]
"""The pixels of images, [images, channels, height, width], or a list of each one's if the tower takes any size."""


class Pixels:
    """The pixels of a split's images by their indices in `Split.images`. Several threads may read at once."""

    def __init__(self, split: Split, processor: Any, config: dict[str, Any]) -> None:
        self._split, self._processor = split, fitted(processor, config)
        self._side = config.get("vision_config", {}).get("image_size")
        self._kept: dict[int, torch.Tensor] = {}
        self._left = _KEPT
        self._keeping = threading.Lock()

    def __len__(self) -> int:
        return len(self._split.images.names)

    def __getitem__(self, images: Sequence[int]) -> Images:
        """The pixels of these images."""
        of_image = {image: self._one(image) for image in dict.fromkeys(images)}
        return self._together([of_image[image] for image in images])

    def once(self, images: Sequence[int]) -> Images:
        """The pixels of these images, of which none is kept for another time."""
        return self._together([self._decoded(image) for image in images])

    def _together(self, images: list[torch.Tensor]) -> Images:
        return images if self._side is None else torch.stack(images)

    def _one(self, image: int) -> torch.Tensor:
        known = self._kept.get(image)
        if known is not None:
            return known
        pixels = self._decoded(image)
        size = pixels.numel() * pixels.element_size()
        with self._keeping:
            if size <= self._left and image not in self._kept:
                self._kept[image] = pixels
                self._left -= size
        return pixels

    def _decoded(self, number: int) -> torch.Tensor:
        """An image as the vision tower takes it, [channels, height, width]."""
        name = self._split.images.names[number]
        image = open_image(self._split, name)
        with naming_row(self._split, lambda: next(row for row in self._split.rows if name in row.pictures)):
            pixels = torch.as_tensor(self._processor.image_processor(images=[image])["pixel_values"][0])
        height, width = pixels.shape[-2:]
        if self._side is not None and (height, width) != (self._side, self._side):
            raise UserError(
                f"the image processor makes pictures of {height} x {width} pixels, the vision tower takes "
                f"{self._side} x {self._side}; correct size and crop_size in the processor's files"
            )
        return pixels


@contextmanager
def naming_row(split: Split, row: Callable[[], Row]) -> Iterator[None]:
    """Turn any exception of a processor into a UserError that names the row which `row` finds."""
    try:
        yield
    except PASSED_ON:
        raise
    except BaseException as error:  # a panic of the tokenizers library is not an Exception
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{split.place(row())}: the checkpoint's processor fails at this row, or soon after it: "
            f"{type(error).__name__}: {reason}"
        ) from error
