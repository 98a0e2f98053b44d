"""Commands around the competition: download, validate, score, submit."""

import json
from dataclasses import asdict
from pathlib import Path

from carvana.backend import import_quietly
from carvana.cli.options import add_command, add_option, add_recipe
from carvana.competition.facts import Paths
from carvana.errors import UsageError, plural


def add_commands(commands) -> None:
    """Add them to the parser."""
    help = "fetch the competition's files, check and unpack them"
    added = add_command(commands, "download", help, download)
    add_option(added, "--data", Path("data"), "where to put them")
    add_option(added, "--only", "train", "which files", str, ("train", "test", "all"))
    help = "use this folder or zip instead of Kaggle"
    added.add_argument("--from", dest="source", type=Path, help=help)

    help = "check a submission's rows and run lengths"
    added = add_command(commands, "validate", help, validate)
    added.add_argument("submission", type=Path, help="the CSV")
    sample = Path("data/sample_submission.csv")
    add_option(added, "--sample", sample, "the sample submission, which lists the images")

    help = "score a submission, a folder of masks or a run's validation split by Dice"
    added = add_command(commands, "score", help, score)
    added.add_argument("submission", type=Path, nargs="?", help="a CSV, or a folder of masks")
    help = "the true masks: img,rle_mask[,Usage], or a folder"
    added.add_argument("--truth", type=Path, help=help)
    add_recipe(added)
    help = (
        "score this run's validation split instead; several: by those that held each photograph out"
    )
    added.add_argument("--run", type=Path, nargs="+", action="extend", help=help)
    add_option(added, "--data", Path("data"), "the competition's files, for --run")
    added.add_argument("--json", action="store_true", help="print JSON")

    added = add_command(commands, "submit", "validate, upload, wait for the score", submit)
    added.add_argument("submission", type=Path)
    added.add_argument("--message", required=True, help="description shown with the submission")
    add_option(added, "--data", Path("data"), "the competition's files, for the sample submission")


def download(options) -> None:
    from carvana.kaggle.download import download

    download(Paths(options.data), options.only, options.source)


def validate(options) -> int:
    from carvana.competition.submission import validate

    result = validate(options.submission, options.sample)
    print(f"{options.submission}: {result.rows} rows, {result.empty} empty masks")
    for line in result.lines():
        print(f"  {line}")
    kinds = plural(len(result.faults), "kind")
    print("valid" if not result.faults else f"not valid: {kinds} of fault")
    return 1 if result.faults else 0


def score(options) -> None:
    absent = [options.submission, options.truth].count(None)
    if absent != (2 if options.run else 0):
        raise UsageError(
            "give a SUBMISSION and its --truth, or --run alone to score its validation split"
        )
    is_named = options.set or options.recipe != "blog"  # the default
    if is_named and not (options.submission and options.submission.is_dir()):
        raise UsageError(
            "--recipe and --set go with folders of masks; a run has its own, a CSV needs none"
        )
    if options.run:
        if not options.debug:
            import_quietly()
        from carvana.prediction.evaluate import score_runs

        result = score_runs(options.run, Paths(options.data))
    else:
        result = _score_files(options)
    print(json.dumps(asdict(result))) if options.json else _print_score(result)


def _score_files(options):
    submission, truth = options.submission, options.truth
    if truth.is_dir() != submission.is_dir():
        raise UsageError(
            f"{submission} and --truth {truth}: give two folders of masks, or two CSVs "
            "(img,rle_mask)"
        )
    if not submission.is_dir():
        from carvana.competition.score import score

        return score(submission, truth)
    from carvana.prediction.evaluate import score_folders
    from carvana.recipe import load_recipe

    return score_folders(submission, truth, load_recipe(options.recipe, options.set).data)


def _print_score(result) -> None:
    print(f"mean Dice {result.mean:.6f} over {result.count} images")
    for part, mean in sorted(result.parts.items()):
        print(f"  {part} {mean:.6f}")
    if result.mean_iou is not None:
        print(f"mean IoU  {result.mean_iou:.6f}")
    for name, dice in result.classes.items():
        print(f"  {name} Dice {dice:.6f}, IoU {result.iou[name]:.6f}")
    for name in result.absent:
        print(f"  {name}: in no mask, true or predicted; left out of the mean")
    for run, mean in result.members.items():
        print(f"  {run} {mean:.6f} alone")
    if result.note:
        print(result.note)
    if 1 < len(result.views) <= 16:
        print("by view: " + " ".join(f"{view}:{mean:.4f}" for view, mean in result.views.items()))
    print("worst:")
    for dice, name in result.worst:
        print(f"  {dice:.6f} {name}")


def submit(options) -> None:
    from carvana.kaggle.submit import submit

    result = submit(options.submission, options.message, Paths(options.data))
    for part, score in (("public", result.public), ("private", result.private)):
        print(f"{part} score {'not shown' if score is None else f'{score:.6f}'}")
    if result.standing:
        print(result.standing)
