"""Makes the alpha masks and the font subset under assets/.

Run it only to change the drawings, after unpacking `@mdi/svg` from npm and a Chinese font:

    python -m tools.sample_model.masks --icons PATH/TO/@mdi/svg/svg --font PATH/TO/wqy-microhei.ttc

It needs `resvg-py`, `simple-icons-pack` and `fonttools`; rendering needs only Pillow and numpy.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from lmmpress.sample.copywriting import characters
from lmmpress.sample.drawing import ASSETS, FONT, LOGO_SIZE, LOGOS, PICTOGRAM_SIZE, PICTOGRAMS


def rasterise(svg: str, size: int) -> Image.Image:
    """The alpha mask ("L", size x size) of an SVG; rendered at four times the size and averaged for smooth edges."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * size, height=4 * size)
    alpha = Image.open(io.BytesIO(bytes(png))).convert("RGBA").getchannel("A")
    return alpha.resize((size, size), Image.Resampling.BOX)


def write_logos() -> None:
    import simple_icons_pack

    for slug in LOGOS:
        icon = simple_icons_pack.get_icon(slug)
        assert icon is not None, slug
        assert icon.license is None, f"{slug} is not under the collection's CC0"
        rasterise(icon.svg, LOGO_SIZE).save(ASSETS / "logos" / f"{slug}.png", optimize=True)


def write_pictograms(icons: Path) -> None:
    for names in PICTOGRAMS:
        for name in names:
            mask = rasterise((icons / f"{name}.svg").read_text("utf-8"), PICTOGRAM_SIZE)
            mask.save(ASSETS / "pictograms" / f"{name}.png", optimize=True)


def write_font(font: Path) -> None:
    """Write a font with only the glyphs that the sample uses, without hinting programs and layout tables."""
    from fontTools import subset

    tables = ["GSUB", "GPOS", "GDEF"]
    options = subset.Options(font_number=0, hinting=False, layout_features=[], drop_tables=tables)
    loaded = subset.load_font(str(font), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=characters())
    subsetter.subset(loaded)
    loaded["head"].modified = loaded["head"].created  # the bytes must not depend on the clock
    subset.save_font(loaded, str(FONT), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, required=True, help="folder svg/ of the npm package @mdi/svg")
    parser.add_argument("--font", type=Path, required=True, help="wqy-microhei.ttc")
    args = parser.parse_args()
    for folder in ("logos", "pictograms"):
        (ASSETS / folder).mkdir(parents=True, exist_ok=True)
    write_logos()
    write_pictograms(args.icons)
    write_font(args.font)


if __name__ == "__main__":
    main()
