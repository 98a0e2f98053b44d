"""Draw pictures on one sheet, each with its name and the outline of its mask."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from carvana.data.provenance import png_mark
from carvana.files import replacing

PAPER, INK, LINE, ORANGE = "#fdfdfb", "#1c1e21", "#dcdcd6", (0xE6, 0x77, 0x00)  # the report's
LEAST = 240  # pixels: pictures are enlarged to at least this, so that their pixels can be seen
GUTTER, MARGIN, TEXT = 8, 24, 24  # pixels between pictures, between groups, for a name
Tile = tuple[np.ndarray, str]  # (height, width, 3) uint8, and its name


def make_tile(picture: np.ndarray, name: str, labels: np.ndarray | None = None) -> Tile:
    """Enlarge a picture if it is small, and draw the borders of labels, (height, width) uint8."""
    factor = -(-LEAST // max(picture.shape))
    pixels = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    if labels is not None:
        labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
        brush = np.ones((3, 3), np.uint8)
        pixels[cv2.dilate(labels, brush) != cv2.erode(labels, brush)] = ORANGE
    return pixels, name


def draw_sheet(groups: list[list[Tile]], columns: int, out: Path) -> None:
    """Save a PNG of groups of pictures, with this many groups side by side.

    Raises:
        CarvanaError: it cannot be written.
    """
    rows = [groups[start : start + columns] for start in range(0, len(groups), columns)]
    heights = [max(pixels.shape[0] for group in row for pixels, _ in group) for row in rows]
    width = max(pixels.shape[1] for group in groups for pixels, _ in group)
    across = len(groups[0]) * (width + GUTTER) - GUTTER + MARGIN
    down = sum(heights) + len(rows) * (TEXT + MARGIN)
    sheet = Image.new("RGB", (len(rows[0]) * across + MARGIN, down + MARGIN), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    y = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, group in enumerate(row):
            x = MARGIN + column * across
            for pixels, name in group:
                sheet.paste(Image.fromarray(pixels), (x, y))
                right, bottom = x + pixels.shape[1], y + pixels.shape[0]
                pen.rectangle((x - 1, y - 1, right, bottom), outline=LINE)
                pen.text((x, bottom + 5), _shorten(name, font, width), INK, font)
                x += width + GUTTER
        y += height + TEXT + MARGIN
    with replacing(out) as temporary:
        sheet.save(temporary, "PNG", pnginfo=png_mark("sheet"))


def _shorten(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Leave out a name's middle if it is wider than a picture."""
    short, half = name, len(name) // 2
    while font.getlength(short) > width and half > 1:
        half -= 1
        short = f"{name[:half]}…{name[-half:]}"
    return short
