"""The one place that opens image files: each is turned as EXIF says, laid on white, in 8 bits and of limited size."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.storage.reading import check_regular
from bootdiff.system.notes import note

#: the most pixels of an image: a small file may say that it unpacks to any number
MOST_PIXELS = 2**27
#: the formats that are tried, whatever a file's name; EPS, for one, would be handed to another program
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
#: the number of EXIF's tag for the orientation, and the turn that undoes each of its values
_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_GREY = ("1", "L", "LA", "La")


def open_image(source: Path | bytes, name: str | None = None, mask: bool = False) -> Image.Image:
    """Return an image as it is meant to be seen, of mode L where it is grey, else RGB.

    The image is turned as its EXIF says. An image with transparent parts is laid on white, with a note. Sixteen bits
    become eight by the range that the format has.

    Args:
        source: the path of a file, or the bytes of one.
        name: what messages call the image; the file's path by default.
        mask: whether to refuse transparency, which in a mask could mean both black and white.

    Raises:
        BootdiffError: if it is no image, is damaged, has too many pixels, or holds values without a stated range.
    """
    called = name or (str(source) if isinstance(source, Path) else "the image")
    if isinstance(source, Path):
        check_regular(source, "picture")
    elif not source:
        raise BootdiffError(f"{called} cannot be read as an image (it is empty); remove or replace it.")
    try:
        # Pillow warns of images that are large; what is too large is said below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=_formats()) as image:
                _check_size(image, called)
                if getattr(image, "n_frames", 1) > 1:
                    note(f"{called} holds several pictures, and the first of them is read.", key="several pictures")
                image.load()
                return _seen(image, called, mask)
    except BootdiffError:
        raise
    except UnidentifiedImageError:
        raise BootdiffError(
            f"{called} cannot be read as an image of a known kind; expected {', '.join(FORMATS[:6])}."
        ) from None
    except Image.DecompressionBombError as error:
        raise _too_large(called, first_line(error)) from error
    except Exception as error:  # Pillow's readers raise whatever Python does on damaged bytes
        raise BootdiffError(f"{called} cannot be read as an image ({first_line(error)}); replace it.") from error


def decode(source: Path | bytes, name: str | None = None) -> np.ndarray:
    """Return an image's pixels in uint8, (h, w) where it is grey, else (h, w, 3).

    Raises:
        BootdiffError: for whatever ``open_image`` refuses.
    """
    return np.asarray(open_image(source, name))


def _formats() -> list[str]:
    """Return those of ``FORMATS`` that the installed Pillow knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(image: Image.Image, called: str) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_large(called, f"{width}×{height}")


def _too_large(called: str, size: str) -> BootdiffError:
    return BootdiffError(f"{called} has too many pixels ({size}); expected at most {MOST_PIXELS:,}; make it smaller.")


def _seen(image: Image.Image, called: str, mask: bool) -> Image.Image:
    plain = _without_alpha(_eight_bits(image, called), called, mask)
    turn = _TURNS.get(_orientation(image))
    return plain if turn is None else plain.transpose(turn)


def _eight_bits(image: Image.Image, called: str) -> Image.Image:
    """Return an image of sixteen bits of grey with eight bits, and an image of another mode as it is."""
    # Pillow gives a PGM of more than eight bits as I, scaled to sixteen.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "real numbers"
        raise BootdiffError(f"{called} holds {kind}, whose range no file says; save it with 8 or 16 bits.")
    return image


def _without_alpha(image: Image.Image, called: str, mask: bool) -> Image.Image:
    kind = "L" if image.mode in _GREY else "RGB"
    if not image.has_transparency_data:
        return image.convert(kind)
    coloured = image.convert("RGBA")
    alpha = coloured.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert(kind)
    if mask:
        raise BootdiffError(f"{called} has transparent parts; expected a mask of white (to be filled) and black.")
    note(f"{called} has transparent parts; such images are laid on white.", key="transparent")
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert(kind)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF says nothing of the picture
        return 1
