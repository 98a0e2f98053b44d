"""Plot how a training went."""

from pathlib import Path

import pandas as pd

from carvana.errors import CarvanaError
from carvana.files import replacing
from carvana.training.checkpoint import COLUMNS


def read_rows(history: Path) -> pd.DataFrame:
    """Read a run's `history.csv`, a row an epoch.

    Raises:
        CarvanaError: it cannot be read.
    """
    try:
        return pd.read_csv(history)[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise CarvanaError(f"{history}: is not a training history; train first") from error


def draw_history(history: Path, out: Path) -> None:
    """Save a plot of dice, accuracy and loss by training step.

    Args:
        history: a run's `history.csv`.
        out: the picture, `.png` or `.svg`.

    Raises:
        CarvanaError: the history cannot be read or the picture not be written.
    """
    from matplotlib.figure import Figure

    rows = read_rows(history)
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("dice", "accuracy", "loss"), strict=True):
        axes.plot(rows["steps"], rows[name], ".--", label="training")
        axes.plot(rows["steps"], rows[f"val_{name}"], "o-", label="validation")
        axes.set(xlabel="step", title=name)
        axes.legend()
    with replacing(out) as temporary:
        figure.savefig(temporary)
