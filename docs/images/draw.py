"""Draw the README's picture: a rendered car, its mask, what `carvana cutout` writes, an edge.

    .venv/bin/python docs/images/draw.py

Uses the `sharper` weights. The kit renders the car; no photograph of the competition is used.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import carvana
from carvana.prediction.cutout import Style, cut_out
from carvana_sandbox.cars.studio import render

CAR, VIEW = 52, 4
TILE = (640, 427)  # width, height
EDGE, ZOOM = (700, 380, 160, 107), 4  # left, top, width, height of the enlarged part
RED = (226, 87, 76)


def main():
    photo, _ = render(CAR, VIEW)
    model = carvana.load("sharper")
    mask = model.mask(photo)
    left, top, width, height = EDGE
    part = (slice(top, top + height), slice(left, left + width))
    tiles = {
        "photograph": Image.fromarray(photo),
        "mask": Image.fromarray(mask),
        "cut-out": cut_out_of(photo, model),
        "its edge, pixel by pixel": outlined(photo[part], mask[part]),
    }
    margin, line = 12, 34
    sheet = Image.new("RGB", (2 * TILE[0] + 3 * margin, 2 * (TILE[1] + line) + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for number, (caption, tile) in enumerate(tiles.items()):
        x = margin + number % 2 * (TILE[0] + margin)
        y = margin + number // 2 * (TILE[1] + line)
        smooth = Image.Resampling.NEAREST if number == 3 else Image.Resampling.LANCZOS
        sheet.paste(tile.convert("RGB").resize(TILE, smooth), (x, y))
        draw.text((x, y + TILE[1] + 4), caption, "#333333", font)
    sheet.save(Path(__file__).with_name("car.jpg"), quality=85)


def cut_out_of(photo: np.ndarray, model) -> Image.Image:
    """Return the file that `carvana cutout --background` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "car.png")
        Image.fromarray(photo).save(path)
        (written,) = cut_out(model, [path], Path(folder, "out"), Style("#" + bytes(RED).hex()))
        return Image.open(written).convert("RGB")


def outlined(photo: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Enlarge a part, with the mask's outline between pixels."""
    size = (photo.shape[1] * ZOOM, photo.shape[0] * ZOOM)
    picture = Image.fromarray(photo).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for y, x in np.argwhere(mask[1:] != mask[:-1]):
        draw.line([(x * ZOOM, (y + 1) * ZOOM), ((x + 1) * ZOOM, (y + 1) * ZOOM)], RED, 2)
    for y, x in np.argwhere(mask[:, 1:] != mask[:, :-1]):
        draw.line([((x + 1) * ZOOM, y * ZOOM), ((x + 1) * ZOOM, (y + 1) * ZOOM)], RED, 2)
    return picture


if __name__ == "__main__":
    main()
