"""Draws an advertisement as a small picture, from alpha masks and a font subset in the package.

All parts have nearly fixed positions (logo top left, pictogram on the right, text at the bottom), because a small
vision transformer has to learn the pictures from scratch on a CPU.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lmmpress.sample.advert import Advert
from lmmpress.sample.copywriting import ANSWERS

ASSETS = Path(__file__).parent / "assets"
FONT = ASSETS / "wqy-microhei-subset.ttf"

SIZE = 64  # pixels, square
LOGO_SIZE = 22
PICTOGRAM_SIZE = 32
GLYPH_SIZE = 11
JITTER = 1  # largest shift of logo and pictogram in pixels, in each direction
NOISE = 6.0  # standard deviation of the pixel noise, of 255

# Slugs of the logos, in the order of ANSWERS["logo"].
LOGOS: tuple[str, ...] = (
    "alipay", "taobao", "xiaomi", "huawei", "bilibili", "nike", "starbucks", "mcdonalds",
)  # fmt: skip

# Pictograms in the order of CLASSES.
PICTOGRAMS: tuple[tuple[str, ...], ...] = (
    ("tshirt-crew", "hanger", "shoe-heel", "hat-fedora"),
    ("cellphone", "laptop", "headphones", "camera"),
    ("pizza", "ice-cream", "food-apple", "cake"),
    ("sofa", "bed", "lamp", "table-furniture"),
    ("lipstick", "bottle-tonic", "spray", "brush"),
    ("book-open-variant", "pencil", "ruler-square", "bookshelf"),
    ("basketball", "dumbbell", "bicycle", "tent"),
    ("paw", "dog", "cat", "bone"),
)

# In the order of ANSWERS["background_color"].
COLORS: tuple[tuple[int, int, int], ...] = (
    (205, 40, 45), (240, 135, 30), (248, 222, 50), (95, 175, 70),
    (95, 180, 235), (130, 65, 175), (28, 28, 32), (242, 242, 242),
)  # fmt: skip

Canvas = NDArray[np.float32]  # (SIZE, SIZE, 3), 0..255
Alpha = NDArray[np.float32]  # (height, width), 0..1


@cache
def load_mask(folder: str, name: str) -> Image.Image:
    with Image.open(ASSETS / folder / f"{name}.png") as image:
        return image.convert("L")


@cache
def load_font() -> ImageFont.FreeTypeFont:
    # Every Pillow contains the basic layout engine, so the pixels do not depend on the machine's libraries.
    return ImageFont.truetype(str(FONT), GLYPH_SIZE, layout_engine=ImageFont.Layout.BASIC)


def alpha(image: Image.Image) -> Alpha:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def blank() -> Image.Image:
    return Image.new("L", (SIZE, SIZE))


def blend(canvas: Canvas, mask: Alpha, color: Canvas) -> None:
    """Paint `color` (3,) through `mask` (SIZE, SIZE) onto the canvas, in place."""
    canvas += mask[:, :, None] * (color - canvas)


def tinted(base: float, rng: Random) -> Canvas:
    """A nearly grey colour (3,) near `base`."""
    return np.array([base + rng.uniform(-12, 12) for _ in range(3)], dtype=np.float32)


def ground(advert: Advert, rng: Random) -> Canvas:
    """Draw the background: its colour with the pattern of the style."""
    color = np.array([c + rng.uniform(-8, 8) for c in COLORS[advert.background_color]], dtype=np.float32)
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = color
    style = ANSWERS["style"][advert.style]
    shade = color * 0.62 if color.mean() > 60 else color + 75  # a pattern must show on black too
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    phase = rng.randrange(2)
    if style == "渐变":
        blend(canvas, (y / (SIZE - 1)).astype(np.float32), shade)
    elif style == "网点":
        dots = ((x + phase) % 8 - 3.5) ** 2 + ((y + phase) % 8 - 3.5) ** 2 < 5
        blend(canvas, dots.astype(np.float32), shade)
    elif style == "斜条纹":
        blend(canvas, ((x + y + 2 * phase) % 16 < 6).astype(np.float32), shade)
    elif style == "方格纹":
        blend(canvas, (((x + phase) % 8 < 2) | ((y + phase) % 8 < 2)).astype(np.float32), shade)
    return canvas


def paste(mask: Image.Image, x: int, y: int) -> Image.Image:
    """`mask` at (x, y) on an empty mask of the picture's size."""
    whole = blank()
    whole.paste(mask, (x, y))
    return whole


def frame(canvas: Canvas, advert: Advert, ink: Canvas, paper: Canvas) -> None:
    """Draw the mark of the form of presentation, under logo and pictogram."""
    form = ANSWERS["manifestation"][advert.manifestation]
    mask = blank()
    pen = ImageDraw.Draw(mask)
    if form == "拼图":
        pen.rectangle((25, 0, 27, SIZE), fill=255)
        pen.rectangle((0, 25, 26, 27), fill=255)
    elif form == "边框图":
        pen.rectangle((0, 0, SIZE - 1, SIZE - 1), outline=255, width=3)
    elif form == "圆形聚焦图":
        pen.ellipse((25, 13, 62, 50), fill=255)
    elif form == "角标图":
        pen.polygon(((46, 0), (SIZE, 0), (SIZE, 18)), fill=255)
    blend(canvas, alpha(mask), paper if form == "圆形聚焦图" else ink)


def write_copy(canvas: Canvas, text: str, vertical: bool, ink: Canvas, paper: Canvas) -> None:
    """Draw a strip of text: along the bottom, or below the logo as the mark of a text picture."""
    strip, glyphs = blank(), blank()
    box = (3, 26, 16, 50) if vertical else (4, 51, 60, 63)
    ImageDraw.Draw(strip).rectangle(box, fill=255)
    pen = ImageDraw.Draw(glyphs)
    if vertical:
        for line, glyph in enumerate(text[:2]):
            pen.text((4, 26 + 12 * line), glyph, fill=255, font=load_font())
    else:
        pen.text((5, 51), text[:5], fill=255, font=load_font())
    blend(canvas, alpha(strip), paper)
    blend(canvas, alpha(glyphs), ink)


def render(advert: Advert, rng: Random) -> Image.Image:
    """Draw the advertisement as an RGB picture of SIZE x SIZE pixels; `rng` gives positions, tints and noise."""
    canvas = ground(advert, rng)
    bright = COLORS[advert.background_color][1] > 120
    ink, paper = tinted(20 if bright else 235, rng), tinted(235 if bright else 20, rng)
    frame(canvas, advert, ink, paper)

    logo = load_mask("logos", LOGOS[advert.logo])
    shift = [rng.randint(-JITTER, JITTER) for _ in range(4)]
    blend(canvas, alpha(paste(logo, 2 + shift[0], 2 + shift[1])), ink)

    pictogram = load_mask("pictograms", rng.choice(PICTOGRAMS[advert.pictogram]))
    placed = paste(pictogram, 28 + shift[2], 16 + shift[3])
    if ANSWERS["style"][advert.style] == "描边":
        # a bright outline with a dark one around it is visible on every background
        blend(canvas, alpha(placed.filter(ImageFilter.MaxFilter(7))), ink)
        blend(canvas, alpha(placed.filter(ImageFilter.MaxFilter(5))), paper)
    blend(canvas, alpha(placed), ink)

    text = advert.title.text.replace(" ", "")
    write_copy(canvas, text, False, ink, paper)
    if ANSWERS["manifestation"][advert.manifestation] == "文字图":
        write_copy(canvas, text[-2:], True, ink, paper)

    noise = np.random.default_rng(rng.getrandbits(64)).normal(0, NOISE, canvas.shape)
    return Image.fromarray(np.clip(canvas + noise, 0, 255).astype(np.uint8))
