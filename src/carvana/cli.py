"""The command line: parse arguments, print, map errors to exit codes."""

import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from carvana.arguments import build_parser
from carvana.backend import import_quietly
from carvana.competition.facts import Paths
from carvana.errors import CarvanaError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 failed, 2 wrong use, 130 interrupted."""
    sys.stdout = sys.stdout or io.StringIO()  # closed, as by `>&-`
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):  # a name the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
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
    if options.cluster and not options.folds:
        raise UsageError("--cluster goes with --folds; a single run trains on one machine")
    if options.folds:
        _train_folds(options)
        return
    from carvana.training.train import train

    metrics = train(options.recipe, options.data, options.run, options.set or (), options.cache)
    _say_trained(options.run, metrics)


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
        _say_trained(run, metrics)


def _say_trained(run: Path, metrics: dict) -> None:
    print(
        f"{run}: {metrics['epochs']} epochs, {metrics['steps']} steps, validation dice "
        f"{metrics['val_dice']:.4f}, accuracy {metrics['val_accuracy']:.4f}"
    )


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
            workers = Workers(client, options.cluster, options.run or [options.weights])
            write(workers, options.images, out, *rest, workers.make)
    else:
        write(_load(options), options.images, out, *rest)
    if not options.part:
        print(f"{out}: written")


def _merge(options) -> None:
    from carvana.prediction.shards import merge

    print(f"{options.out}: {merge(options.out, options.part)} rows written")


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
    kinds = len(result.faults)
    print("valid" if not kinds else f"not valid: {kinds} kind{'s' if kinds > 1 else ''} of fault")
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
        if options.submission.is_dir():
            from carvana.prediction.evaluate import score_folders
            from carvana.recipe import load_recipe

            settings = load_recipe(options.recipe, options.set).data
            result = score_folders(options.submission, options.truth, settings)
        else:
            result = score(options.submission, options.truth)
    if options.json:
        print(json.dumps(asdict(result)))
        return
    print(f"mean Dice {result.mean:.6f} over {result.count} images")
    for part, mean in (*sorted(result.parts.items()), *result.classes.items()):
        print(f"  {part} {mean:.6f}")
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


def _inspect(options) -> int:
    from carvana.data.inspect import draw_sheet, inspect
    from carvana.recipe import load_recipe

    settings = load_recipe(options.recipe, options.set).data
    result = inspect(options.data, settings)
    if options.out:
        draw_sheet(options.data, settings, options.out)
    if options.json:
        print(json.dumps(vars(result)))
        return 1 if result.faults else 0
    print(f"{options.data}: {result.pairs} photographs with masks")
    for title, counts in (("sizes", result.sizes), ("formats", result.formats)):
        print(f"{title}: " + ", ".join(f"{name} ({count})" for name, count in counts.items()))
    shares = (f"{name} {share:.1%}" for name, share in result.classes.items())
    print(f"pixels: {', '.join(shares)}")
    for line in (*result.warnings, *result.faults):
        print(f"  {line}")
    print(f"{len(result.faults)} faults" if result.faults else "no faults")
    if options.out:
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
    "download": _download,
    "validate": _validate,
    "score": _score,
    "submit": _submit,
    "demo": _demo,
    "serve": _serve,
    "render": _render,
}
