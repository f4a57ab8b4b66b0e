"""Images of look-alike groups."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from jaxcrnn.render.atlas import SIZE, Atlas


def glyph_sheet(glyphs: Atlas, groups: Sequence[str], columns: int = 8) -> Image.Image:
    """Draw groups as a sheet of numbered boxes, each with one row per typeface.

    Args:
      glyphs: glyphs of every character of the groups.
      groups: look-alike groups.
      columns: number of boxes in a row.
    """
    index = {c: i for i, c in enumerate(glyphs.characters)}
    fonts, widest = len(glyphs.fonts), max(map(len, groups))
    wide, high = widest * SIZE + 40, fonts * SIZE + 12
    rows = -(-len(groups) // columns)
    sheet = Image.new("L", (columns * wide, rows * high), 255)
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, group in enumerate(groups):
        left, top = number % columns * wide, number // columns * high
        draw.rectangle((left, top, left + wide - 4, top + high - 4), outline=200)
        draw.text((left + 4, top + 4), str(number + 1), fill=110, font=small)
        for k, character in enumerate(group):
            for f in range(fonts):
                tile = Image.fromarray(255 - glyphs.tiles[f, index[character]])
                sheet.paste(tile, (left + 32 + k * SIZE, top + 4 + f * SIZE))
    return sheet
