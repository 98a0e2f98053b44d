"""The command line: parse arguments, print, map errors to exit codes."""

import argparse
import json
import os
import sys
from pathlib import Path

from carvana.competition import Paths
from carvana.errors import CarvanaError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 failed, 2 wrong use, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        if options.tensorflow and not options.debug:
            _import_tensorflow()
        return options.run_command(options) or 0
    except BrokenPipeError:  # what reads our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CarvanaError as error:
        if options.debug:
            raise
        print(f"carvana {options.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # one that no stage has a better word for
        if options.debug:
            raise
        print(f"carvana {options.command}: {error}; see to it and run it again", file=sys.stderr)
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
        go_on = "" if options.command == "submit" else "; run it again to go on"
        print(f"\ncarvana {options.command}: interrupted{go_on}", file=sys.stderr)
        return 130


def _import_tensorflow() -> None:
    """Import TensorFlow without the lines it prints about GPUs that are not there."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)


def _download(options) -> None:
    from carvana.kaggle_client import download

    download(Paths(options.data), options.only, options.source)


def _train(options) -> None:
    from carvana.recipe import load_recipe
    from carvana.report import draw_history
    from carvana.train import HISTORY, train

    recipe = load_recipe(options.recipe, options.set)
    metrics = train(recipe, Paths(options.data), options.run)
    draw_history(options.run / HISTORY, options.run / "history.png")
    print(
        f"{options.run}: {metrics['epochs']} epochs, {metrics['steps']} steps, validation dice "
        f"{metrics['val_dice']:.4f}, accuracy {metrics['val_accuracy']:.4f}"
    )


def _predict(options) -> None:
    from carvana.predict import write_submission

    write_submission(
        _trained(options), options.images, options.out, options.threshold, options.workers
    )
    print(f"{options.out}: written")


def _cutout(options) -> None:
    from carvana.cutout import cut_out

    written = cut_out(_trained(options), options.photo, options.out)
    print(f"{options.out}: {len(written)} written")


def _weights(options) -> None:
    from carvana.predict import Run
    from carvana.weights import save_weights

    save_weights(Run.load(options.run), options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


def _trained(options):
    """Load what --run or --weights names."""
    from carvana.predict import Run
    from carvana.weights import load_weights

    return Run.load_mean(options.run) if options.run else load_weights(options.weights)


def _validate(options) -> int:
    from carvana.submission import validate

    found = validate(options.submission, options.sample)
    print(f"{options.submission}: {found.rows} rows, {found.empty} empty masks")
    for line in found.lines():
        print(f"  {line}")
    print("valid" if found.valid else f"not valid: {len(found.faults)} kinds of fault")
    return 0 if found.valid else 1


def _score(options) -> None:
    if (options.submission is None) == (options.run is None):
        raise UsageError("give a SUBMISSION with --truth, or --run to score its validation split")
    if options.run and options.truth:
        raise UsageError("--truth goes with a SUBMISSION; --run has its own validation masks")
    if options.run:
        _import_tensorflow()
        from carvana.full_resolution import score_validation

        result = score_validation(options.run, Paths(options.data))
    else:
        from carvana.score import score

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
    from carvana.report import write_report

    print(write_report(options.run, Paths(options.data)))


def _submit(options) -> None:
    from carvana.kaggle_client import submit

    result = submit(options.submission, options.message, Paths(options.data))
    for part, score in (("public", result.public), ("private", result.private)):
        print(f"{part} score {'not shown' if score is None else f'{score:.6f}'}")
    if result.standing:
        print(result.standing)


def _demo(options) -> None:
    from carvana.sandbox.demo import demo

    demo(options.data, Path("runs"), Path("submissions"))


def _serve(options) -> None:
    from carvana.sandbox.server import Fault, serve

    faults = [Fault.parse(text) for text in options.fault or []]
    serve(options.folder, options.port, faults, options.pending)


def _render(options) -> None:
    from carvana.sandbox.rendered import write_competition

    write_competition(options.folder, options.train_cars, options.test_cars, options.seed)
    print(f"{options.folder}: {options.train_cars} training cars, {options.test_cars} test cars")


def _look(options) -> None:
    from carvana import dataset
    from carvana.recipe import load_recipe
    from carvana.report import draw_samples

    paths = Paths(options.data)
    names = dataset.find_pairs(paths)
    step = max(len(names) // options.count, 1)
    draw_samples(
        load_recipe(options.recipe, options.set),
        paths,
        names[::step][: options.count],
        options.out,
    )
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

    def command(name, run_command, help, tensorflow=False):
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(run_command=run_command, tensorflow=tensorflow)
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    def option(added, name, default, help, type=Path):
        added.add_argument(name, type=type, default=default, help=f"{help} (default: {default})")

    def recipe_options(added):
        added.add_argument("--recipe", default="blog", help="a recipe's name or .toml file")
        added.add_argument(
            "--set",
            action="append",
            metavar="SECTION.KEY=VALUE",
            help="change a number of the recipe; may be given again",
        )
        option(added, "--data", Path("data"), "the competition's files")

    added = command("download", _download, "fetch the competition's files, check and unpack them")
    option(added, "--data", Path("data"), "where to put them")
    added.add_argument(
        "--only", default="train", choices=("train", "test", "all"), help="(default: train)"
    )
    added.add_argument(
        "--from", dest="source", type=Path, help="take the archives from this folder, not Kaggle"
    )

    added = command("train", _train, "train a recipe, or go on with a run that was stopped", True)
    recipe_options(added)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")

    def trained_options(added):
        which = added.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--run", type=Path, action="append", help="the run's folder; of several, the mean"
        )
        which.add_argument(
            "--weights", help="weights the kit ships (sharp, sharper), or a .npz file"
        )

    added = command("predict", _predict, "predict a folder of photographs into a submission", True)
    trained_options(added)
    option(added, "--images", Path("data/test"), "the folder of photographs")
    added.add_argument("--out", type=Path, required=True, help="the submission, .csv.gz")
    added.add_argument("--threshold", type=_threshold, help="of the probability (the recipe's)")
    added.add_argument("--workers", type=_workers, help="threads that decode (default: the cores)")

    added = command("validate", _validate, "check a submission's rows and run lengths")
    added.add_argument("submission", type=Path)
    option(added, "--sample", Path("data/sample_submission.csv"), "for the images to expect")

    added = command("score", _score, "score a submission, or a run's validation split, by Dice")
    added.add_argument("submission", type=Path, nargs="?")
    added.add_argument("--truth", type=Path, help="the true masks: img,rle_mask[,Usage]")
    added.add_argument("--run", type=Path, help="score this run's validation split instead")
    option(added, "--data", Path("data"), "the competition's files, for --run")
    added.add_argument("--json", action="store_true", help="print JSON")

    added = command("report", _report, "report on a run in one HTML file", True)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    option(added, "--data", Path("data"), "the competition's files, for the pictures")

    added = command("submit", _submit, "validate, upload, wait for the score")
    added.add_argument("submission", type=Path)
    added.add_argument("--message", required=True, help="what Kaggle shows beside it")
    option(added, "--data", Path("data"), "the competition's files, for the sample submission")

    added = command("cutout", _cutout, "cut cars out: PNGs with the background transparent", True)
    added.add_argument("photo", type=Path, nargs="+", help="a JPEG or PNG file")
    trained_options(added)
    added.add_argument("--out", type=Path, required=True, help="the folder for the PNGs")

    added = command("weights", _weights, "write a run's weights to one small file", True)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    added.add_argument("--out", type=Path, required=True, help="the file, .npz")

    added = command("demo", _demo, "the whole road with no Kaggle account, on rendered cars")
    option(added, "--data", Path("data"), "where the demo's files go")

    sandbox = commands.add_parser("sandbox", help="a local stand-in for Kaggle")
    parent, commands = (
        commands,
        sandbox.add_subparsers(dest="action", required=True, metavar="ACTION"),
    )
    added = command("serve", _serve, "serve a folder of competition files on this machine")
    added.add_argument("folder", type=Path, help="with the zips and solution.csv")
    option(added, "--port", 0, "0 for any that is free", type=int)
    option(added, "--pending", 5.0, "seconds until a submission is scored", type=float)
    added.add_argument(
        "--fault",
        action="append",
        help="misbehave: a status or drop, hold, flip, pending, failed, then on= times= after= "
        "retry_after= message=, as in 'drop on=train.zip after=100000 times=3'",
    )
    added = command("render", _render, "render a competition of made-up cars")
    added.add_argument("folder", type=Path)
    option(added, "--train-cars", 24, "training cars, 16 photographs each", type=_count)
    option(added, "--test-cars", 4, "test cars", type=_count)
    option(added, "--seed", 1, "of the cars", type=int)
    commands = parent

    added = command("look", _look, "draw what the network sees: image, augmented image, mask", True)
    recipe_options(added)
    option(added, "--out", Path("look.png"), "the picture")
    option(added, "--count", 4, "how many photographs", type=_count)
    return parser


if __name__ == "__main__":
    sys.exit(main())
