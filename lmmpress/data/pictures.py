"""Decodes pictures for the model: RGB with 8 bits per channel, upright, on white. No other module does this.

Pillow opens only the listed raster formats, since some others start programs (EPS starts Ghostscript). Size and shape
are checked before a picture is decoded.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lmmpress.errors import UserError
from lmmpress.files.bounded import LFS_POINTER, read_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 100_000_000
MOST_BYTES = 512 << 20
MOST_SCANS = 200  # of a JPEG: each costs a few bytes and is a pass over all pixels; a usual JPEG has 10
LONGEST_SHAPE = 200  # long side / short side: a processor that enlarges the short side enlarges the long one too

# Pillow warns above its own limit, which is lower than ours; above ours we raise an error
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP = ("I", "F")  # modes with more than 8 bits in one channel, beside those that begin with I;16
# markers in front of EXIF, or of XMP, which may hold an orientation too
_EXIF_IN_PNG = (b"eXIf", b"Raw profile type ", b"XML:com.adobe.xmp")
_SCAN = b"\xff\xda"  # the marker at the start of a JPEG scan
_EXIF_IN_JPEG = (b"Exif", b"http://ns.adobe.com/xap")


def open_picture(path: Path) -> Image.Image:
    """Read a picture file in mode RGB: turned upright by its EXIF orientation, transparency on white, grey of more than
    8 bits scaled to 8. An animation gives its first frame.

    Raises UserError if the file is not regular, is too large, or cannot be read.
    """
    try:
        return picture_of(read_bytes(path.parent, path.name, MOST_BYTES))
    except UserError as error:
        raise UserError(f"{path} cannot be read as a picture: {error}") from None


def picture_of(raw: bytes) -> Image.Image:
    """Decode the bytes of a picture file as `open_picture` does; UserError says what is wrong with them."""
    return _decoded(raw)[1]


def small_png(image: Image.Image, side: int) -> bytes:
    """A picture as a PNG of new pixels, no side above `side`: nothing of the file that it was read from is in it."""
    image.thumbnail((side, side))
    image.info.clear()  # profiles and comments, which would be written too
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


@dataclass(frozen=True)
class Look:
    """What a picture file holds: its format, and the sides of the upright picture in pixels."""

    format: str
    width: int
    height: int


def look(raw: bytes) -> Look:
    """Decode the bytes of a picture file as `picture_of` does, and say what they are."""
    kind, image = _decoded(raw)
    return Look(kind, *image.size)


def _decoded(raw: bytes) -> tuple[str, Image.Image]:
    try:
        image = _opened(raw)
        kind = str(image.format)
        image.load()
        return kind, as_rgb(image)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise any exception on a damaged file
        raise UserError(_fault(error, raw)) from None


def as_rgb(image: Image.Image) -> Image.Image:
    """A decoded picture in mode RGB, converted as `open_picture` describes."""
    turn = _TURNS.get(_orientation(image))
    flat = _flat(image)
    return flat.transpose(turn) if turn is not None else flat


def is_plain(raw: bytes) -> bool:
    """Whether `as_rgb` and Pillow's convert("RGB") give the same pixels for the bytes of a picture file.

    Caches from before `as_rgb` existed are valid for such pictures. Only pictures that may differ are decoded; an
    unreadable picture counts as plain.
    """
    if _is_plain_at_a_glance(raw):
        return True
    try:
        image = _opened(raw)
        turned = _orientation(image) in _TURNS
        if image.format == "TIFF" and turned:
            image.load()  # Pillow turns a TIFF upright when it loads it
            turned = _orientation(image) in _TURNS
        if turned:
            return False
        if not (_is_deep(image) or image.has_transparency_data):
            return True
        image.load()
        return as_rgb(image).tobytes() == image.convert("RGB").tobytes()
    except Exception:
        return True


def _is_plain_at_a_glance(raw: bytes) -> bool:
    """Whether the raw bytes show that a picture is plain, as most are; far faster than opening it with Pillow."""
    if raw.startswith(b"\x89PNG\r\n\x1a\n") and len(raw) > 25:
        depth, kind = raw[24], raw[25]
        opaque = (kind in (2, 3) or (kind == 0 and depth <= 8)) and b"tRNS" not in raw
        return opaque and not any(mark in raw for mark in _EXIF_IN_PNG)
    return raw.startswith(b"\xff\xd8") and not any(mark in raw for mark in _EXIF_IN_JPEG)


def _opened(raw: bytes) -> Image.Image:
    """Open a picture and check its size and shape by the header; nothing is decoded yet."""
    image = Image.open(io.BytesIO(raw), formats=FORMATS)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UserError(f"it has {width} x {height} pixels, more than {MOST_PIXELS:,}")
    if max(width, height) > LONGEST_SHAPE * min(width, height):
        raise UserError(f"it has {width} x {height} pixels, one side more than {LONGEST_SHAPE} times the other")
    if image.format in ("JPEG", "MPO") and raw.count(_SCAN) > MOST_SCANS:
        raise UserError(f"it is a JPEG of more than {MOST_SCANS} scans; save it again")
    return image


def _fault(error: Exception, raw: bytes) -> str:
    if not raw:
        return "it is empty; fetch it again"
    if raw.startswith(LFS_POINTER):
        return "it is a git-lfs pointer and not the file itself; run `git lfs pull` there"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, or is damaged; convert it, or fetch it again"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MOST_PIXELS:,} pixels"
    reason = (str(error).splitlines() or [""])[0]
    return f"it is damaged: {type(error).__name__}{f': {reason}' if reason else ''}"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if there is none or the EXIF block is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels are readable, so a damaged EXIF block is no error
        return 1


def _is_deep(image: Image.Image) -> bool:
    return image.mode in _DEEP or image.mode.startswith("I;16")


def _flat(image: Image.Image) -> Image.Image:
    """Convert to mode RGB, with transparency on white."""
    if _is_deep(image):
        return _scaled(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode in ("RGBa", "La"):  # premultiplied: Pillow converts these to their plain forms only
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    layer = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layer.convert("RGB"), mask=layer.getchannel("A"))
    return white


def _scaled(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits to 8 bits without clipping.

    16-bit values are scaled from their whole range. Other integers and floats are scaled from the smallest range that
    holds all values: 0 to 1 (floats only), 0 to 255, 0 to 65535, or else from the minimum to the maximum.
    """
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError("it holds values that are not finite")
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:
        least, most = float(values.min()), float(values.max())
        ranges = ([1.0] if image.mode == "F" else []) + [255.0, 65535.0]
        fitting = [end for end in ranges if least >= 0 and most <= end]
        low, high = (0.0, fitting[0]) if fitting else (least, most)
    grey = np.rint((values - low) * (255 / ((high - low) or 1.0)))
    flat = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # a PNG can declare one grey value transparent
        flat.paste("white", mask=Image.fromarray((values == transparent).astype(np.uint8) * 255))
    return flat
