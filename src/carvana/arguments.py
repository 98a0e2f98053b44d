"""The arguments of every command."""

import argparse
import contextlib
import math
from collections.abc import Callable
from pathlib import Path


def _whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return what reads a whole number in a range."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            span = f"above {least - 1}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {span}")
        return int(text)

    return read


def _between(low: float, high: float, what: str) -> Callable[[str], float]:
    """Return what reads a number within two others."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low < float(text) < high:
                return float(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

    return read


_count, _workers, _folds = _whole(1), _whole(1, 64), _whole(2, 100)
_threshold = _between(0, 1, "a number between 0 and 1")
_minutes = _between(0, 1e6, "a number of minutes")


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part, as in 3/16 (1/16 to 16/16)")
    return int(number), int(count)


def build_parser() -> argparse.ArgumentParser:
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


def _command(commands, name, help, tensorflow=False) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=help, description=help)
    added.set_defaults(action=name, tensorflow=tensorflow)
    added.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return added


def _option(added, name, default, help, type=Path) -> None:
    added.add_argument(name, type=type, default=default, help=f"{help} (default: {default})")


def _recipe_options(added) -> None:
    added.add_argument(
        "--recipe", default="blog", help="a recipe's name or .toml file (default: blog)"
    )
    added.add_argument(
        "--set",
        action="append",
        metavar="SECTION.KEY=VALUE",
        help="change a setting of the recipe; may be repeated",
    )


def _model_options(added, several: bool = False) -> None:
    which = added.add_mutually_exclusive_group(required=True)
    how = {"action": "extend", "nargs": "+"} if several else {"action": "append"}
    which.add_argument("--run", type=Path, **how, help="a run's folder; several: their mean")
    which.add_argument(
        "--weights", help="weights the kit ships (quick, sharp, sharper), or an .npz file"
    )


def _cluster_option(added) -> None:
    help = "a Dask scheduler's address, or local:N for N workers on this machine"
    added.add_argument("--cluster", metavar="ADDRESS", help=help)


def _add_training_commands(commands) -> None:
    added = _command(commands, "train", "train a recipe, or resume a stopped run", True)
    _recipe_options(added)
    _option(added, "--data", Path("data"), "the data folder")
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    added.add_argument("--cache", type=Path, help="for prepared pairs (default: cache in --data)")
    help = "train so many runs, fold-1, fold-2, ... in --run, each validated on other cars"
    added.add_argument("--folds", type=_folds, metavar="N", help=help)
    _cluster_option(added)

    help = "check a data folder: its pairs, sizes, formats, classes, and what is wrong"
    added = _command(commands, "inspect", help, True)
    added.add_argument("data", type=Path, help="the data folder")
    _recipe_options(added)
    added.add_argument("--out", type=Path, help="draw photographs and masks into this picture")
    added.add_argument("--json", action="store_true", help="print JSON")

    help = "draw training samples: image, augmented image, mask"
    added = _command(commands, "look", help, True)
    _recipe_options(added)
    _option(added, "--data", Path("data"), "the data folder")
    _option(added, "--out", Path("look.png"), "the picture")
    _option(added, "--count", 4, "how many photographs", type=_count)

    help = "report on a run, or compare several, in one HTML file"
    added = _command(commands, "report", help, True)
    added.add_argument(
        "--run",
        type=Path,
        action="append",
        required=True,
        help="the run's folder; several: compare them",
    )
    _option(added, "--data", Path("data"), "the competition's files, for the pictures")

    added = _command(commands, "weights", "write a run's weights to a small file", True)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    added.add_argument("--out", type=Path, required=True, help="the file, .npz")


def _add_prediction_commands(commands) -> None:
    help = "predict a folder of photographs into a submission"
    added = _command(commands, "predict", help, True)
    _model_options(added, several=True)
    _option(added, "--images", Path("data/test"), "the folder of photographs")
    which = added.add_mutually_exclusive_group(required=True)
    which.add_argument("--out", type=Path, help="the submission to write, .csv or .csv.gz")
    which.add_argument("--masks", type=Path, help="a folder for PNG label maps instead")
    added.add_argument(
        "--threshold", type=_threshold, help="probability threshold (default: the recipe's)"
    )
    added.add_argument("--workers", type=_workers, help="decoding threads (default: one per core)")
    added.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="make this part of the photographs only, see merge",
    )
    added.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "auto"),
        help="auto: bfloat16 or float16 where the hardware has it, faster and a little different "
        "(default: float32)",
    )
    _cluster_option(added)
    added.add_argument("--minutes", type=_minutes, default=math.inf, help="stop after so long")

    help = "put parts of a prediction that were made apart together"
    added = _command(commands, "merge", help)
    added.add_argument("out", type=Path, help="the submission to write, .csv or .csv.gz")
    added.add_argument("part", type=Path, nargs="+", help="folders that --part made, ….shards")

    help = "cut cars out, onto transparency, a colour or a picture"
    added = _command(commands, "cutout", help)
    added.add_argument("photo", type=Path, nargs="+", help="a picture of any common format")
    _model_options(added)
    added.add_argument("--out", type=Path, required=True, help="the folder for the cutouts")
    added.add_argument(
        "--background",
        metavar="COLOUR|IMAGE",
        help="behind the car: white, #rrggbb, a path",
    )
    added.add_argument("--crop", action="store_true", help="cut the picture to the car")
    added.add_argument("--mask-only", action="store_true", help="write the masks in grey instead")
    added.add_argument(
        "--format",
        default="png",
        choices=("png", "jpg", "webp"),
        help="of the files; jpg and webp need --background or --mask-only (default: png)",
    )
    added.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "litert", "tensorflow"),
        help="what predicts (default: litert for 16 photographs or fewer, where it is installed)",
    )

    help = "write a run as a model other programs open: ONNX, LiteRT, OpenVINO, SavedModel"
    added = _command(commands, "export", help, True)
    _model_options(added)
    formats = ("onnx", "litert", "openvino", "saved_model")
    added.add_argument("--format", required=True, choices=formats, help="the format")
    added.add_argument("--out", type=Path, required=True, help="the folder for the model")
    _option(added, "--data", Path("data"), "the data folder, to check on; else rendered cars")
    added.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirror image's mask (default: as the recipe predicts)",
    )
    added.add_argument(
        "--scales", help="sizes to predict at, as 1.0,1.25 (default: as the recipe predicts)"
    )
    added.add_argument(
        "--quantize", choices=("int8",), help="in 8-bit integers, calibrated on --data"
    )
    _option(added, "--count", 16, "photographs to check on, at most", type=_count)


def _add_competition_commands(commands) -> None:
    help = "fetch the competition's files, check and unpack them"
    added = _command(commands, "download", help)
    _option(added, "--data", Path("data"), "where to put them")
    added.add_argument(
        "--only",
        default="train",
        choices=("train", "test", "all"),
        help="which files (default: train)",
    )
    added.add_argument(
        "--from", dest="source", type=Path, help="a folder or zip to take them from, not Kaggle"
    )

    added = _command(commands, "validate", "check a submission's rows and run lengths")
    added.add_argument("submission", type=Path, help="the CSV")
    _option(
        added,
        "--sample",
        Path("data/sample_submission.csv"),
        "the sample submission, which lists the images",
    )

    help = "score a submission, a folder of masks or a run's validation split by Dice"
    added = _command(commands, "score", help)
    added.add_argument("submission", type=Path, nargs="?", help="a CSV, or a folder of masks")
    added.add_argument(
        "--truth", type=Path, help="the true masks: img,rle_mask[,Usage], or a folder"
    )
    _recipe_options(added)
    help = "score this run's validation split instead; several: what they hold out"
    added.add_argument("--run", type=Path, nargs="+", action="extend", help=help)
    _option(added, "--data", Path("data"), "the competition's files, for --run")
    added.add_argument("--json", action="store_true", help="print JSON")

    added = _command(commands, "submit", "validate, upload, wait for the score")
    added.add_argument("submission", type=Path)
    added.add_argument("--message", required=True, help="description shown with the submission")
    _option(added, "--data", Path("data"), "the competition's files, for the sample submission")


def _add_sandbox_commands(commands) -> None:
    help = "the whole pipeline without a Kaggle account, on rendered cars"
    added = _command(commands, "demo", help)
    _option(added, "--data", Path("data"), "where the demo's files go")

    sandbox = commands.add_parser("sandbox", help="a local stand-in for Kaggle")
    actions = sandbox.add_subparsers(dest="action", required=True, metavar="ACTION")
    help = "serve a folder of competition files on this machine"
    added = _command(actions, "serve", help)
    added.add_argument("folder", type=Path, help="with the zips and solution.csv")
    _option(added, "--port", 0, "the port; 0 picks a free one", type=int)
    _option(added, "--pending", 5.0, "seconds until a submission is scored", type=float)
    added.add_argument(
        "--fault",
        action="append",
        help="misbehave: a status or drop, hold, flip, pending, failed, then on= times= after= "
        "retry_after= message=, as in 'drop on=train.zip after=100000 times=3'",
    )
    added = _command(actions, "render", "render a competition of made-up cars")
    added.add_argument("folder", type=Path)
    _option(added, "--train-cars", 24, "training cars, 16 photographs each", type=_count)
    _option(added, "--test-cars", 4, "test cars", type=_count)
    _option(added, "--seed", 1, "random seed of the cars", type=int)
