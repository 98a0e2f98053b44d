"""What commands print of their results."""

from pathlib import Path
from typing import TYPE_CHECKING

from carvana.errors import plural

if TYPE_CHECKING:
    from carvana.competition.score import Score
    from carvana.competition.submission import Validation
    from carvana.data.inspect import Inspection


def print_trained(run: Path, metrics: dict) -> None:
    print(
        f"{run}: {plural(metrics['epochs'], 'epoch')}, {plural(metrics['steps'], 'step')}, "
        f"validation dice {metrics['val_dice']:.4f}, accuracy {metrics['val_accuracy']:.4f}"
    )


def print_validation(submission: Path, result: "Validation") -> None:
    print(f"{submission}: {result.rows} rows, {result.empty} empty masks")
    for line in result.lines():
        print(f"  {line}")
    kinds = plural(len(result.faults), "kind")
    print("valid" if result.valid else f"not valid: {kinds} of fault")


def print_score(result: "Score") -> None:
    print(f"mean Dice {result.mean:.6f} over {result.count} images")
    for part, mean in (*sorted(result.parts.items()), *result.classes.items()):
        print(f"  {part} {mean:.6f}")
    for name in result.absent:
        print(f"  {name}: in no mask, true or predicted; left out of the mean")
    for run, member in result.members.items():
        print(f"  {run} {member.dice:.6f} over {member.count} images{_gain(member.gain)}")
    if result.members and not any(member.gain for member in result.members.values()):
        print("  no image is held out by two of the runs, so they do not tell which of them help")
    if result.note:
        print(result.note)
    if 1 < len(result.views) <= 16:
        print("by view: " + " ".join(f"{view}:{mean:.4f}" for view, mean in result.views.items()))
    print("worst:")
    for dice, name in result.worst:
        print(f"  {dice:.6f} {name}")


def _gain(gain: float | None) -> str:
    if gain is None:
        return ""
    return f"; the mean is {abs(gain):.6f} {'better' if gain > 0 else 'worse'} with it"


def print_inspection(data: Path, result: "Inspection") -> None:
    print(f"{data}: {plural(result.pairs, 'photograph')} with masks")
    for title, counts in (("sizes", result.sizes), ("formats", result.formats)):
        print(f"{title}: " + ", ".join(f"{name} ({count})" for name, count in counts.items()))
    shares = (f"{name} {100 * share:.3g}%" for name, share in result.classes.items())
    print(f"pixels: {', '.join(shares)}")
    for line in (*result.warnings, *result.faults):
        print(f"  {line}")
    print(plural(len(result.faults), "fault") if result.faults else "no faults")
