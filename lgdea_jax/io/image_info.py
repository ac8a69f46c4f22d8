"""What the readers of image files give besides the pixels, and what they raise when a file cannot be used."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

from lgdea_jax.errors import UserError

# More pixels than any radiograph has: a damaged or hostile header could ask for any amount of memory otherwise.
MAX_PIXELS = 1 << 26
MAX_PIXEL_BYTES = 1 << 28  # As it is stored; colours, alpha and depth count.


class UnreadableImage(Exception):
    """An image file that cannot be used; the message is a short reason without a path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextlib.contextmanager
def damage_as(reason: str, *, named: bool = True) -> Iterator[None]:
    """Turns whatever is raised inside into `UnreadableImage(reason)`, with the kind of the error if it is `named`.

    Parsers and decoders of other people meet damaged bytes, and raise whatever they like.
    """
    try:
        yield
    except (UnreadableImage, UserError):
        raise
    except Exception as error:
        raise UnreadableImage(f"{reason} ({type(error).__name__})" if named else reason) from None


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """What a file states about its image.

    Attributes:
      file_format: "png", "jpeg" or "dicom".
      mode: the file's pixels: "grey8", "grey16", "rgb", "rgba", "palette" or "grey1".
      spacing: mm per pixel (row, column); 0 where unknown.
      conversions: what had to be converted to get the array, for counting ("palette", "monochrome1", "window", ...).
      view, modality: from DICOM, "" otherwise.
      sex: of the subject, from DICOM: "M", "F" or ""; age: years, NaN where unknown.
    """

    file_format: str
    mode: str
    spacing: tuple[float, float] = (0.0, 0.0)
    conversions: tuple[str, ...] = ()
    view: str = ""
    modality: str = ""
    sex: str = ""
    age: float = math.nan
