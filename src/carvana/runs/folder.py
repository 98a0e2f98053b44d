"""A run's folder: the names of its files, the marker that says it is ours, its figures."""

import contextlib
import io
import json
from pathlib import Path

import pandas as pd

from carvana.errors import CarvanaError, UsageError
from carvana.recipe import Recipe

MARKER = "run.json"  # says that the kit made the folder, and in which layout
LAYOUT = 2
MODEL = "model.keras"  # after the last epoch: what predicts, and what training resumes from
BEST = "best.keras"  # of the epoch with the highest validation dice
RECIPE = "recipe.toml"
SPLIT = "split.csv"
HISTORY = "history.csv"
METRICS = "metrics.json"
PLOT = "history.png"
REPORT = "report.html"
OURS = (MODEL, BEST, RECIPE, SPLIT, HISTORY, METRICS, PLOT, REPORT, "logs")

COLUMNS = [  # of history.csv; empty where an epoch was cut short
    *("epoch", "steps", "seconds", "accuracy", "dice", "loss"),
    *("val_accuracy", "val_dice", "val_loss"),
]


def history_columns(recipe: Recipe) -> list[str]:
    """Return the columns of a recipe's history: of several classes each one's Dice and IoU, too."""
    if not recipe.data.classes:
        return [*COLUMNS]
    each = [f"val_{score}_{name}" for score in ("dice", "iou") for name in recipe.data.classes]
    return [*COLUMNS, "val_expected_dice", "val_iou", *each]


def check_layout(folder: Path) -> dict:
    """Read a run's marker, which holds its `precision`; make sure it is of this layout.

    Raises:
        UsageError: it is of another.
        CarvanaError: there is none, or it cannot be read.
    """
    marker = folder / MARKER
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        layout = content["layout"]
        if layout == LAYOUT and "precision" not in content:
            raise ValueError("no precision")
    except FileNotFoundError as error:
        raise CarvanaError(
            f"{folder}: has no {MARKER}, so this version of the kit did not make it; train again "
            "in another folder, or use the version that made it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CarvanaError(
            f"{marker}: cannot be read; restore it or train in another folder"
        ) from error
    if layout != LAYOUT:
        raise UsageError(
            f"{marker}: the run has layout {layout}, this version of the kit reads layout "
            f"{LAYOUT}; use the version that made it, or train again in another folder"
        )
    return content


def read_metrics(folder: Path) -> dict | None:
    """Read the figures of a finished training; None where it is not finished."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(metrics, dict) and {"epochs", "steps", *COLUMNS[-3:]} <= metrics.keys()
    return metrics if whole else None


def require_metrics(folder: Path) -> dict:
    """Read the figures of a finished training.

    Raises:
        CarvanaError: it is not finished, or they cannot be read.
    """
    if (metrics := read_metrics(folder)) is None:
        raise CarvanaError(
            f"{folder / METRICS}: cannot be read, or training is not finished; run `carvana train` "
            "again"
        )
    return metrics


def read_usual(folder: Path, recipe: Recipe) -> float | None:
    """Return how sure a run's masks usually are, see `usual_key`; None where it is not known."""
    with contextlib.suppress(TypeError, ValueError):
        return float((read_metrics(folder) or {}).get(usual_key(recipe)))
    return None


def usual_key(recipe: Recipe) -> str:
    """Return which figure of a training tells how sure its masks usually are.

    With one output it is the soft dice of the validation photographs, which calibrated
    probabilities predict; several classes have a metric of their own.
    """
    return "val_expected_dice" if recipe.data.classes else "val_dice"


def read_history(folder: Path, columns: list[str] = COLUMNS) -> pd.DataFrame:
    """Read a run's history, a row an epoch.

    Raises:
        CarvanaError: it cannot be read, is cut short, or lacks a column.
    """
    path = folder / HISTORY
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("cut short")
        return pd.read_csv(io.StringIO(text)).apply(pd.to_numeric)[columns]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CarvanaError(
            f"{path}: is not a training history; restore it or train another run"
        ) from error
