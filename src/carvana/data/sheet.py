"""Draw pictures on one sheet, each with its name and the outline of its mask."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from carvana.data.marks import png_mark
from carvana.files import replacing

PAPER, INK, LINE, ORANGE = "#fdfdfb", "#1c1e21", "#dcdcd6", (0xE6, 0x77, 0x00)  # the report's
LEAST = 240  # pixels: narrower pictures are enlarged, so that pixels and names can be seen
GUTTER, MARGIN, TEXT = 8, 24, 24  # pixels between pictures, between groups, for a name


@dataclass(frozen=True)
class Tile:
    """A picture of a sheet."""

    picture: np.ndarray  # (height, width, 3) uint8
    name: str
    labels: np.ndarray | None = None  # (height, width) uint8, whose borders are drawn on it

    def draw(self) -> np.ndarray:
        """Return the picture, enlarged if it is small, with the borders of its labels."""
        pixels, labels = self.picture, self.labels
        factor = -(-LEAST // pixels.shape[1])
        pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        if labels is not None:
            labels = cv2.resize(labels, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            brush = np.ones((3, 3), np.uint8)
            borders = cv2.dilate(labels, brush) != cv2.erode(labels, brush)
            pixels = np.where(borders[..., None], np.uint8(ORANGE), pixels)
        return pixels


def draw_sheet(groups: list[list[Tile]], columns: int, out: Path) -> None:
    """Save a PNG of groups of pictures, so many groups beside each other.

    Raises:
        CarvanaError: it cannot be written.
    """
    drawn = [[tile.draw() for tile in group] for group in groups]
    width = max(pixels.shape[1] for group in drawn for pixels in group)
    height = max(pixels.shape[0] for group in drawn for pixels in group)
    across = len(groups[0]) * (width + GUTTER) - GUTTER + MARGIN
    down = height + TEXT + MARGIN
    rows = -(-len(groups) // columns)
    size = (min(columns, len(groups)) * across + MARGIN, rows * down + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (group, pictures) in enumerate(zip(groups, drawn, strict=True)):
        x, y = MARGIN + number % columns * across, MARGIN + number // columns * down
        for tile, pixels in zip(group, pictures, strict=True):
            sheet.paste(Image.fromarray(pixels), (x, y))
            bottom = y + pixels.shape[0]
            pen.rectangle((x - 1, y - 1, x + pixels.shape[1], bottom), outline=LINE)
            pen.text((x, bottom + 5), _shorten(tile.name, font, width), fill=INK, font=font)
            x += width + GUTTER
    with replacing(out) as temporary:
        sheet.save(temporary, "PNG", pnginfo=png_mark("sheet"))


def _shorten(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Leave out a name's middle if it is wider than a picture."""
    short, half = name, len(name) // 2
    while font.getlength(short) > width and half:
        half -= 1
        short = f"{name[:half]}…{name[-half:]}"
    return short
