"""Commands that use a model: predict, merge, cutout, export."""

import argparse
import math
from pathlib import Path

from carvana.backend import import_quietly
from carvana.cli.options import (
    add_cluster,
    add_command,
    add_model,
    add_option,
    between,
    part,
    whole,
)


def add_commands(commands) -> None:
    """Add them to the parser."""
    help = "predict masks for a folder of photographs: a submission, or PNG label maps"
    added = add_command(commands, "predict", help, predict, True)
    add_model(added)
    add_option(added, "--images", Path("data/test"), "the folder of photographs")
    which = added.add_mutually_exclusive_group(required=True)
    which.add_argument("--out", type=Path, help="the submission to write, .csv or .csv.gz")
    which.add_argument("--masks", type=Path, help="a folder for PNG label maps instead")
    threshold = between(0, 1, "a number between 0 and 1")
    help = "probability threshold (default: the recipe's)"
    added.add_argument("--threshold", type=threshold, help=help)
    help = "decoding threads (default: one per core)"
    added.add_argument("--workers", type=whole(1, 64), help=help)
    help = "predict only this part of the photographs; see merge"
    added.add_argument("--part", type=part, metavar="I/N", help=help)
    help = "auto: bfloat16 or float16 where that is faster; masks differ a little"
    add_option(added, "--precision", "float32", help, str, ("float32", "auto"))
    add_cluster(added)
    minutes, help = between(0, 1e6, "a number of minutes"), "stop after this many minutes"
    added.add_argument("--minutes", type=minutes, default=math.inf, help=help)

    added = add_command(commands, "merge", "merge separately predicted parts", merge)
    added.add_argument("out", type=Path, help="the submission to write, .csv or .csv.gz")
    added.add_argument("part", type=Path, nargs="+", help="the .rows folders that --part wrote")

    help = "cut cars out, onto transparency, a colour or a picture"
    added = add_command(commands, "cutout", help, cutout)
    added.add_argument("photo", type=Path, nargs="+", help="a picture of any common format")
    add_model(added)
    added.add_argument("--out", type=Path, required=True, help="the folder for the cutouts")
    help = "behind the car: white, #rrggbb, a path"
    added.add_argument("--background", metavar="COLOUR|IMAGE", help=help)
    added.add_argument("--crop", action="store_true", help="cut the picture to the car")
    added.add_argument("--mask-only", action="store_true", help="write the masks in grey instead")
    help = "of the files; jpg and webp need --background or --mask-only"
    add_option(added, "--format", "png", help, str, ("png", "jpg", "webp"))
    engines = ("auto", "litert", "tensorflow")
    help = "inference engine; auto: litert for 16 photographs or fewer, where installed"
    add_option(added, "--engine", "auto", help, str, engines)

    help = "export a run or weights for other programs: ONNX, LiteRT, OpenVINO, SavedModel"
    added = add_command(commands, "export", help, export, True)
    add_model(added)
    formats = ("onnx", "litert", "openvino", "saved_model")
    added.add_argument("--format", required=True, choices=formats, help="the format")
    added.add_argument("--out", type=Path, required=True, help="the folder for the model")
    add_option(added, "--data", Path("data"), "the data folder, to check on; else rendered cars")
    help = "average with the mirror image's mask (default: as the recipe predicts)"
    added.add_argument("--flip", action=argparse.BooleanOptionalAction, help=help)
    help = "sizes to predict at, as 1.0,1.25 (default: as the recipe predicts)"
    added.add_argument("--scales", help=help)
    add_option(added, "--count", 16, "photographs to check on, at most", type=whole(1))


def predict(options) -> None:
    from carvana.prediction.label_maps import write_masks
    from carvana.prediction.submission import write_submission

    write, out = (write_masks, options.masks) if options.masks else (write_submission, options.out)
    rest = (options.threshold, options.workers, options.part, options.minutes)
    if options.cluster:
        from carvana.cluster.dask import open_cluster
        from carvana.cluster.predict import make_on
        from carvana.runs.trained import RunInfo

        with open_cluster(options.cluster) as client:
            info = RunInfo.read(options.run or options.weights, options.precision)
            write(info, options.images, out, *rest, make_on(client, options.cluster, info))
    else:
        write(_load(options, options.precision), options.images, out, *rest)
    if not options.part:
        print(f"{out}: written")


def merge(options) -> None:
    from carvana.prediction.submission import merge

    print(f"{options.out}: {merge(options.out, options.part)} rows written")


def cutout(options) -> None:
    from carvana.export import quick
    from carvana.prediction.cutout import Style, cut_out

    style = Style(options.background, options.crop, options.mask_only, options.format)
    source = options.run or options.weights
    wants_quick = quick.is_quick(options.engine, len(options.photo))
    model = quick.open_kept(source) if wants_quick else None
    if model is None:
        import_quietly()
        if options.engine == "litert":
            model = quick.GraphModel(quick.keep(source, options.photo))
    is_kept = model is not None
    if is_kept:
        print(f"{_name(options)}: predicting by LiteRT, in float32")
    else:
        model = _load(options)
    written = cut_out(model, options.photo, options.out, style)
    print(f"{options.out}: {len(written)} written")
    if wants_quick and not is_kept:
        quick.keep_for_next(source, options.photo)


def export(options) -> None:
    from carvana.export.check import check_request, export, photographs_of, table

    check_request(options.out, options.format)  # before photographs are rendered
    overrides = []
    if options.flip is not None:
        overrides.append(f"prediction.flip={str(options.flip).lower()}")
    if options.scales is not None:
        overrides.append(f"prediction.scales=[{options.scales}]")
    source = options.run or options.weights
    photographs = photographs_of(source, options.data, options.count)
    if not photographs:
        from carvana_sandbox.cars.studio import render_some

        photographs = render_some(options.count)
    for line in table(export(source, options.out, options.format, overrides, photographs)):
        print(line)
    print(f"{options.out}: written")


def _load(options, precision: str = "float32"):
    """Load what --run or --weights names, and say what it runs on."""
    from carvana.networks.build import describe_device
    from carvana.prediction.model import load

    model = load(options.run or options.weights, precision)
    print(f"{_name(options)}: predicting on {describe_device()}, in {model.run.precision}")
    return model


def _name(options) -> str:
    return options.weights or ", ".join(map(str, options.run))
