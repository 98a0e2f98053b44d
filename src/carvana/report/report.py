"""Report on a run in one HTML file; draw what a network is trained on."""

import base64
import html
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from carvana.competition.facts import Paths
from carvana.data.augment import augment
from carvana.data.cache import load_pair
from carvana.data.dataset import find_pairs
from carvana.data.images import check_sheet, open_photograph, our_mark
from carvana.data.masks import IGNORED, paint, read_mask, to_picture
from carvana.errors import CarvanaError
from carvana.files import replacing, write_text
from carvana.prediction.evaluate import score_validation
from carvana.prediction.predict import Model, load
from carvana.recipe import Recipe
from carvana.run import HISTORY, METRICS, PLOT, RECIPE, REPORT
from carvana.training.plot import draw_history

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: auto; padding: 1rem }}
td, th {{ padding: .1rem .8rem; text-align: right; font-variant-numeric: tabular-nums }}
td:first-child, th:first-child {{ text-align: left }}
img {{ max-width: 100% }} pre {{ background: #f4f4f4; padding: 1rem; overflow-x: auto }}
</style>
<h1>{name}</h1>
<h2>Figures</h2><table>{metrics}</table>
<h2>Training</h2><img alt="dice, accuracy and loss by step" src="{plot}"><table>{history}</table>
<h2>Validation at full size: Dice by view</h2><table>{views}</table>
<h2>The worst: truth | photograph | prediction | errors</h2>
<p>False positives are red, false negatives green.</p>{masks}
<h2>Recipe</h2><pre>{recipe}</pre></html>
"""


def draw_samples(recipe: Recipe, paths: Paths, count: int, out: Path) -> None:
    """Save a picture of training samples: a row each of image, augmented image, mask.

    Args:
        recipe: whose input and augmentation to show.
        paths: the competition's data.
        count: how many photographs, from all over the data.
        out: the picture, `.png`.

    Raises:
        CarvanaError: a pair cannot be used, or the picture cannot be written.
        UsageError: `out` does not end in .png, or is another picture.
    """
    check_sheet(out)
    pairs = find_pairs(paths.root, recipe.data)
    rows = []
    for number, pair in enumerate(pairs[:: max(len(pairs) // count, 1)][:count]):
        image, mask = load_pair(pair, recipe)
        seed = (recipe.training.seed, number)
        augmented, mask = augment(np.concatenate((image, mask), axis=-1), seed, recipe.augment)
        rows.append(np.hstack((image, augmented, paint(mask, recipe.data))))
    picture = Image.fromarray(np.round(np.vstack(rows) * 255).astype(np.uint8))
    with replacing(out) as temporary:
        picture.save(temporary, "PNG", pnginfo=our_mark("sheet"))


def write_report(folder: Path, paths: Paths, worst: int = 10) -> Path:
    """Write `report.html` into a run: figures, plot, masks and recipe, self-contained.

    The masks are the worst of the validation photographs, which are scored at full resolution for
    it; without the data folder, the report says so instead.

    Args:
        folder: the run, its training finished.
        paths: the competition's data.
        worst: how many photographs to show.

    Returns:
        The report's path.

    Raises:
        CarvanaError: the run is absent or unfinished, a photograph or mask cannot be used, or the
            report cannot be written.
    """
    if not (folder / METRICS).is_file():
        raise CarvanaError(f"{folder}: no finished training; run `carvana train` first")
    plot = folder / PLOT
    draw_history(folder / HISTORY, plot)
    views, masks = "", f"<p>{html.escape(str(paths.root))} does not exist.</p>"
    if paths.root.is_dir():
        scored = score_validation(folder, paths, worst)
        views = _table([list(scored.views), list(scored.views.values())])
        masks = "".join(_panels(load(folder), paths, scored.worst))
    history = pd.read_csv(folder / HISTORY)
    page = _PAGE.format(
        name=html.escape(folder.name),
        metrics=_table(json.loads((folder / METRICS).read_text()).items()),
        plot=_inline(Image.open(plot), "PNG"),
        history=_table([list(history.columns), *history.itertuples(index=False)]),
        views=views,
        masks=masks,
        recipe=html.escape((folder / RECIPE).read_text()),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _panels(model: Model, paths: Paths, scored: list[tuple[float, str]]) -> Iterator[str]:
    """Yield the HTML of truth | photograph | prediction | errors for each photograph."""
    dices, settings = {name: dice for dice, name in scored}, model.recipe.data
    pairs = find_pairs(paths.root, settings)
    masks = {pair.image: pair.mask for pair in pairs if pair.name in dices}

    def compare(path: Path, probability: np.ndarray) -> str:
        photograph = open_photograph(path).convert("RGB")
        truth, predicted = read_mask(masks[path], settings), model.decide(probability)
        errors = np.asarray(photograph) // 2
        wrong = (predicted != truth) & (truth != IGNORED)
        errors[wrong & (predicted > 0)] = (255, 0, 0)
        errors[wrong & (predicted == 0)] = (0, 255, 0)
        width, height = 480, round(480 * photograph.height / photograph.width)
        panels = (
            to_picture(truth, settings),
            photograph,
            to_picture(predicted, settings),
            Image.fromarray(errors),
        )
        picture = Image.new("RGB", (len(panels) * width, height))
        for column, panel in enumerate(panels):
            picture.paste(panel.convert("RGB").resize((width, height)), (column * width, 0))
        name = html.escape(path.name)
        return (
            f"<p>{name}: {dices[path.name]:.4f}<br>"
            f'<img alt="{name}" src="{_inline(picture, "JPEG")}"></p>'
        )

    yield from model.predict(sorted(masks, key=lambda path: dices[path.name]), compare)


def _inline(picture: Image.Image, kind: str) -> str:
    data = io.BytesIO()
    picture.save(data, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def _table(rows) -> str:
    def cell(value) -> str:
        return f"{value:.4f}" if isinstance(value, float) else html.escape(str(value))

    return "".join(
        f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in rows
    )
