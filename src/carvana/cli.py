"""The command line: parse arguments, print, map errors to exit codes."""

import io
import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from carvana.arguments import build_parser
from carvana.backend import import_quietly
from carvana.competition.facts import Paths
from carvana.errors import CarvanaError, Terminated, UsageError
from carvana.files import remedy_for
from carvana.printing import print_inspection, print_score, print_trained, print_validation


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code.

    0, 1 failed, 2 wrong use, 130 interrupted, 143 terminated.
    """
    sys.stdout = sys.stdout or io.StringIO()  # closed, as by `>&-`
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):  # a name the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of large pictures and odd EXIF data
    try:
        if options.tensorflow and not options.debug and not getattr(options, "cluster", None):
            import_quietly()
        code = COMMANDS[options.action](options) or 0
        sys.stdout.flush()
        return code
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
        what = f"{error.filename or options.command}: {error.strerror or error}"
        remedy = f"{remedy_for(error)}, then run the same command again"
        print(f"carvana {options.command}: {what}; {remedy}", file=sys.stderr)
        return 1
    except Exception as error:
        memory = isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__
        if options.debug or not memory:
            raise
        remedy = "lower training.batch_size, prediction.batch_size or the input's size"
        print(f"carvana {options.command}: out of memory; {remedy} (--set)", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        if options.debug:
            raise
        resumes = options.command in ("download", "train", "predict", "demo")
        resume = "; run it again to resume" if resumes else ""
        print(f"\ncarvana {options.command}: interrupted{resume}", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130


def _download(options) -> None:
    from carvana.kaggle.download import download

    download(Paths(options.data), options.only, options.source)


def _train(options) -> None:
    if options.cluster and not options.folds:
        raise UsageError("--cluster goes with --folds; a single run trains on one machine")
    if options.folds:
        _train_folds(options)
        return
    from carvana.training.train import train

    metrics = train(options.recipe, options.data, options.run, options.set or (), options.cache)
    print_trained(options.run, metrics)


def _train_folds(options) -> None:
    from carvana.recipe import load_recipe
    from carvana.training.folds import train_folds

    recipe, run, folds = load_recipe(options.recipe, options.set), options.run, options.folds
    if options.cluster:
        from carvana.cluster import open_cluster
        from carvana.training.cluster import train_folds_on

        with open_cluster(options.cluster) as client:
            trained = train_folds_on(
                client, options.cluster, recipe, options.data, run, folds, options.cache
            )
    else:
        trained = train_folds(recipe, options.data, run, folds, cache=options.cache)
    for run, metrics in trained:
        print_trained(run, metrics)


def _predict(options) -> None:
    from carvana.prediction.shards import write_masks, write_submission

    write, out = write_masks, options.masks
    if options.out:
        write, out = write_submission, options.out
    rest = (options.threshold, options.workers, options.part, options.minutes)
    if options.cluster:
        from carvana.cluster import open_cluster
        from carvana.prediction.cluster import Workers

        with open_cluster(options.cluster) as client:
            sources = options.run or [options.weights]
            workers = Workers(client, options.cluster, sources, options.precision)
            write(workers, options.images, out, *rest, workers.make)
    else:
        write(_load(options, options.precision), options.images, out, *rest)
    if not options.part:
        print(f"{out}: written")


def _merge(options) -> None:
    from carvana.prediction.shards import merge

    print(f"{options.out}: {merge(options.out, options.part)} rows written")


def _cutout(options) -> None:
    from carvana.prediction import quick
    from carvana.prediction.cutout import Style, cut_out

    style = Style(options.background, options.crop, options.mask_only, options.format)
    sources, count = options.run or [options.weights], len(options.photo)
    engine, reason, graph = quick.choose_engine(options.engine, sources, count)
    if options.debug:
        print(f"engine {engine}: {reason}")
    elif not graph:
        import_quietly()
    if engine == "litert":
        model = quick.QuickModel(graph or quick.keep_graph(sources, options.photo))
        print(f"{options.weights or options.run[0]}: predicting by LiteRT, in float32")
    else:
        model = _load(options)
    written = cut_out(model, options.photo, options.out, style)
    print(f"{options.out}: {len(written)} written")
    if quick.will_keep(options.engine, engine, count):
        quick.keep_for_next(sources, options.photo)


def _weights(options) -> None:
    from carvana.run import Run

    Run.load(options.run).save_weights(options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


def _export(options) -> None:
    from carvana.prediction.export import export, table

    overrides = []
    if options.flip is not None:
        overrides.append(f"prediction.flip={str(options.flip).lower()}")
    if options.scales is not None:
        overrides.append(f"prediction.scales=[{options.scales}]")
    rows = export(
        options.run or options.weights,
        options.out,
        options.format,
        options.data,
        overrides,
        options.quantize,
        options.count,
    )
    for line in table(rows):
        print(line)
    print(f"{options.out}: written")


def _load(options, precision: str = "float32"):
    """Load what --run or --weights names, and say what it runs on."""
    from carvana.networks import describe_device
    from carvana.prediction.predict import load

    model = load(options.run or options.weights, precision)
    name = options.weights or ", ".join(map(str, options.run))
    print(f"{name}: predicting on {describe_device()}, in {model.run.precision}")
    return model


def _validate(options) -> int:
    from carvana.competition.submission import validate

    result = validate(options.submission, options.sample)
    print_validation(options.submission, result)
    return 0 if result.valid else 1


def _score(options) -> None:
    if (options.submission is None) == (options.run is None):
        raise UsageError("give a SUBMISSION with --truth, or --run to score its validation split")
    if options.run and options.truth:
        raise UsageError("--truth goes with a SUBMISSION; --run has its own validation masks")
    if options.run:
        if not options.debug:
            import_quietly()
        from carvana.prediction.ensemble import score_together
        from carvana.prediction.evaluate import score_validation

        if len(options.run) == 1:
            result = score_validation(options.run[0], Paths(options.data))
        else:
            result = score_together(options.run, Paths(options.data))
    else:
        from carvana.competition.score import score

        if options.truth is None:
            raise UsageError("--truth is missing: the true masks, a CSV (img,rle_mask) or a folder")
        if options.truth.is_dir() != options.submission.is_dir():
            raise UsageError(
                f"{options.submission} and --truth {options.truth}: give two folders of masks, or "
                "two CSVs (img,rle_mask)"
            )
        if options.submission.is_dir():
            from carvana.prediction.evaluate import score_folders
            from carvana.recipe import load_recipe

            settings = load_recipe(options.recipe, options.set).data
            result = score_folders(options.submission, options.truth, settings)
        else:
            result = score(options.submission, options.truth)
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        print_score(result)


def _report(options) -> None:
    from carvana.report.compare import compare_runs
    from carvana.report.report import write_report

    paths = Paths(options.data)
    several = len(options.run) > 1
    print(compare_runs(options.run, paths) if several else write_report(options.run[0], paths))


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
    from carvana.report.samples import draw_samples

    recipe = load_recipe(options.recipe, options.set)
    draw_samples(recipe, Paths(options.data), options.count, options.out)
    print(f"{options.out}: image | augmented image | mask")


def _inspect(options) -> int:
    from carvana.data.dataset import match_pairs
    from carvana.data.inspect import draw_sheet, inspect
    from carvana.data.marks import check_sheet
    from carvana.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.set)
    if options.out:
        check_sheet(options.out)
    pairs, faults = match_pairs(options.data, recipe.data)
    result = inspect(pairs, faults, recipe)
    if options.json:
        print(json.dumps(vars(result)))
    else:
        print_inspection(options.data, result)
    if options.out:
        draw_sheet(pairs, recipe, options.out)
        if not options.json:
            print(f"{options.out}: photograph | mask")
    return 1 if result.faults else 0


COMMANDS = {
    "train": _train,
    "inspect": _inspect,
    "look": _look,
    "report": _report,
    "weights": _weights,
    "predict": _predict,
    "merge": _merge,
    "cutout": _cutout,
    "export": _export,
    "download": _download,
    "validate": _validate,
    "score": _score,
    "submit": _submit,
    "demo": _demo,
    "serve": _serve,
    "render": _render,
}
