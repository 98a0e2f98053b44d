"""The command line: parse arguments, print, map errors to exit codes."""

import argparse
import json
import os
import sys
from pathlib import Path

from carvana.backend import import_quietly
from carvana.competition.facts import Paths
from carvana.errors import CarvanaError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 failed, 2 wrong use, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        if options.tensorflow and not options.debug:
            import_quietly()
        return options.run_command(options) or 0
    except BrokenPipeError:  # the reader of our output is gone, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CarvanaError as error:
        if options.debug:
            raise
        print(f"carvana {options.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # one that no stage explains
        if options.debug:
            raise
        remedy = "fix this and run the command again"
        print(f"carvana {options.command}: {error}; {remedy}", file=sys.stderr)
        return 1
    except Exception as error:
        memory = isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__
        if options.debug or not memory:
            raise
        remedy = "lower training.batch_size, prediction.batch_size or the input's size"
        print(f"carvana {options.command}: out of memory; {remedy} (--set)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if options.debug:
            raise
        resumes = options.command in ("download", "train", "predict", "demo")
        resume = "; run it again to resume" if resumes else ""
        print(f"\ncarvana {options.command}: interrupted{resume}", file=sys.stderr)
        return 130


def _download(options) -> None:
    from carvana.kaggle.download import download

    download(Paths(options.data), options.only, options.source)


def _train(options) -> None:
    from carvana.training.train import train

    metrics = train(options.recipe, options.data, options.run, options.set or ())
    print(
        f"{options.run}: {metrics['epochs']} epochs, {metrics['steps']} steps, validation dice "
        f"{metrics['val_dice']:.4f}, accuracy {metrics['val_accuracy']:.4f}"
    )


def _predict(options) -> None:
    from carvana.prediction.shards import write_submission

    model = _load(options)
    write_submission(model, options.images, options.out, options.threshold, options.workers)
    print(f"{options.out}: written")


def _cutout(options) -> None:
    from carvana.prediction.cutout import cut_out

    written = cut_out(_load(options), options.photo, options.out)
    print(f"{options.out}: {len(written)} written")


def _weights(options) -> None:
    from carvana.run import Run

    Run.load(options.run).save_weights(options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


def _load(options):
    """Load what --run or --weights names, and say what it runs on."""
    from carvana.networks import describe_device, precision_of
    from carvana.prediction.predict import load

    model = load(options.run or options.weights)
    name = options.weights or ", ".join(map(str, options.run))
    print(f"{name}: predicting on {describe_device()}, in {precision_of(model.run.networks[0])}")
    return model


def _validate(options) -> int:
    from carvana.competition.submission import validate

    result = validate(options.submission, options.sample)
    print(f"{options.submission}: {result.rows} rows, {result.empty} empty masks")
    for line in result.lines():
        print(f"  {line}")
    print("valid" if result.valid else f"not valid: {len(result.faults)} kinds of fault")
    return 0 if result.valid else 1


def _score(options) -> None:
    if (options.submission is None) == (options.run is None):
        raise UsageError("give a SUBMISSION with --truth, or --run to score its validation split")
    if options.run and options.truth:
        raise UsageError("--truth goes with a SUBMISSION; --run has its own validation masks")
    if options.run:
        if not options.debug:
            import_quietly()
        from carvana.prediction.evaluate import score_validation

        result = score_validation(options.run, Paths(options.data))
    else:
        from carvana.competition.score import score

        if options.truth is None:
            raise UsageError("--truth is missing: the CSV of true masks (img,rle_mask)")
        result = score(options.submission, options.truth)
    if options.json:
        print(json.dumps(vars(result)))
        return
    print(f"mean Dice {result.mean:.6f} over {result.count} images")
    for part, mean in sorted(result.parts.items()):
        print(f"  {part} {mean:.6f}")
    if len(result.views) <= 16:
        print("by view: " + " ".join(f"{view}:{mean:.4f}" for view, mean in result.views.items()))
    print("worst:")
    for dice, name in result.worst:
        print(f"  {dice:.6f} {name}")


def _report(options) -> None:
    from carvana.report.report import write_report

    print(write_report(options.run, Paths(options.data)))


def _submit(options) -> None:
    from carvana.kaggle.submit import submit

    result = submit(options.submission, options.message, Paths(options.data))
    for part, score in (("public", result.public), ("private", result.private)):
        print(f"{part} score {'not shown' if score is None else f'{score:.6f}'}")
    if result.standing:
        print(result.standing)


def _demo(options) -> None:
    from carvana.sandbox.demo import demo

    demo(options.data, Path("runs"), Path("submissions"))


def _serve(options) -> None:
    from carvana.sandbox.faults import Fault
    from carvana.sandbox.serve import serve

    faults = [Fault.parse(text) for text in options.fault or []]
    serve(options.folder, options.port, faults, options.pending)


def _render(options) -> None:
    from carvana.sandbox.cars.rendered import write_competition

    write_competition(options.folder, options.train_cars, options.test_cars, options.seed)
    print(f"{options.folder}: {options.train_cars} training cars, {options.test_cars} test cars")


def _look(options) -> None:
    from carvana.recipe import load_recipe
    from carvana.report.report import draw_samples

    recipe = load_recipe(options.recipe, options.set)
    draw_samples(recipe, Paths(options.data), options.count, options.out)
    print(f"{options.out}: image | augmented image | mask")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 64")
    return int(text)


def _threshold(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="carvana", description="Reproduce Kaggle's Carvana Image Masking Challenge."
    )
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_training_commands(commands)
    _add_prediction_commands(commands)
    _add_competition_commands(commands)
    _add_sandbox_commands(commands)
    return parser


def _command(commands, name, run_command, help, tensorflow=False) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=help, description=help)
    added.set_defaults(run_command=run_command, tensorflow=tensorflow)
    added.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return added


def _option(added, name, default, help, type=Path) -> None:
    added.add_argument(name, type=type, default=default, help=f"{help} (default: {default})")


def _recipe_options(added) -> None:
    added.add_argument("--recipe", default="blog", help="a recipe's name or .toml file")
    added.add_argument(
        "--set",
        action="append",
        metavar="SECTION.KEY=VALUE",
        help="change a setting of the recipe; may be repeated",
    )
    _option(added, "--data", Path("data"), "the competition's files")


def _model_options(added) -> None:
    which = added.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--run", type=Path, action="append", help="a run's folder; several: their mean"
    )
    which.add_argument("--weights", help="weights the kit ships (sharp, sharper), or an .npz file")


def _add_training_commands(commands) -> None:
    added = _command(commands, "train", _train, "train a recipe, or resume a stopped run", True)
    _recipe_options(added)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")

    help = "draw training samples: image, augmented image, mask"
    added = _command(commands, "look", _look, help, True)
    _recipe_options(added)
    _option(added, "--out", Path("look.png"), "the picture")
    _option(added, "--count", 4, "how many photographs", type=_count)

    added = _command(commands, "report", _report, "report on a run in one HTML file", True)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    _option(added, "--data", Path("data"), "the competition's files, for the pictures")

    added = _command(commands, "weights", _weights, "write a run's weights to a small file", True)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    added.add_argument("--out", type=Path, required=True, help="the file, .npz")


def _add_prediction_commands(commands) -> None:
    help = "predict a folder of photographs into a submission"
    added = _command(commands, "predict", _predict, help, True)
    _model_options(added)
    _option(added, "--images", Path("data/test"), "the folder of photographs")
    added.add_argument("--out", type=Path, required=True, help="the submission, .csv.gz")
    added.add_argument("--threshold", type=_threshold, help="of the probability (the recipe's)")
    added.add_argument("--workers", type=_workers, help="threads that decode (default: the cores)")

    help = "cut cars out: PNGs with a transparent background"
    added = _command(commands, "cutout", _cutout, help, True)
    added.add_argument("photo", type=Path, nargs="+", help="a JPEG or PNG file")
    _model_options(added)
    added.add_argument("--out", type=Path, required=True, help="the folder for the PNGs")


def _add_competition_commands(commands) -> None:
    help = "fetch the competition's files, check and unpack them"
    added = _command(commands, "download", _download, help)
    _option(added, "--data", Path("data"), "where to put them")
    added.add_argument(
        "--only", default="train", choices=("train", "test", "all"), help="(default: train)"
    )
    added.add_argument(
        "--from", dest="source", type=Path, help="take the archives from this folder, not Kaggle"
    )

    added = _command(commands, "validate", _validate, "check a submission's rows and run lengths")
    added.add_argument("submission", type=Path)
    _option(added, "--sample", Path("data/sample_submission.csv"), "for the images to expect")

    help = "score a submission, or a run's validation split, by Dice"
    added = _command(commands, "score", _score, help)
    added.add_argument("submission", type=Path, nargs="?")
    added.add_argument("--truth", type=Path, help="the true masks: img,rle_mask[,Usage]")
    added.add_argument("--run", type=Path, help="score this run's validation split instead")
    _option(added, "--data", Path("data"), "the competition's files, for --run")
    added.add_argument("--json", action="store_true", help="print JSON")

    added = _command(commands, "submit", _submit, "validate, upload, wait for the score")
    added.add_argument("submission", type=Path)
    added.add_argument("--message", required=True, help="what Kaggle shows beside it")
    _option(added, "--data", Path("data"), "the competition's files, for the sample submission")


def _add_sandbox_commands(commands) -> None:
    help = "the whole pipeline without a Kaggle account, on rendered cars"
    added = _command(commands, "demo", _demo, help)
    _option(added, "--data", Path("data"), "where the demo's files go")

    sandbox = commands.add_parser("sandbox", help="a local stand-in for Kaggle")
    actions = sandbox.add_subparsers(dest="action", required=True, metavar="ACTION")
    help = "serve a folder of competition files on this machine"
    added = _command(actions, "serve", _serve, help)
    added.add_argument("folder", type=Path, help="with the zips and solution.csv")
    _option(added, "--port", 0, "0 for any that is free", type=int)
    _option(added, "--pending", 5.0, "seconds until a submission is scored", type=float)
    added.add_argument(
        "--fault",
        action="append",
        help="misbehave: a status or drop, hold, flip, pending, failed, then on= times= after= "
        "retry_after= message=, as in 'drop on=train.zip after=100000 times=3'",
    )
    added = _command(actions, "render", _render, "render a competition of made-up cars")
    added.add_argument("folder", type=Path)
    _option(added, "--train-cars", 24, "training cars, 16 photographs each", type=_count)
    _option(added, "--test-cars", 4, "test cars", type=_count)
    _option(added, "--seed", 1, "of the cars", type=int)
