"""Commands around training: train, inspect, plan, look, report, weights."""

import json
from pathlib import Path

from carvana.cli.options import add_cluster, add_command, add_option, add_recipe, between, whole
from carvana.competition.facts import Paths
from carvana.errors import UsageError, plural


def add_commands(commands) -> None:
    """Add them to the parser."""
    added = add_command(commands, "train", "train a recipe, or resume a stopped run", train, True)
    add_recipe(added)
    add_option(added, "--data", Path("data"), "the data folder")
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    help = "where prepared pairs go (default: cache in --data)"
    added.add_argument("--cache", type=Path, help=help)
    help = "train N runs, fold-1, fold-2, ... in --run, each validated on other cars"
    added.add_argument("--folds", type=whole(2, 100), metavar="N", help=help)
    add_cluster(added)

    help = "check a data folder: its pairs, sizes, formats, classes, and what is wrong"
    added = add_command(commands, "inspect", help, inspect, True)
    added.add_argument("data", type=Path, help="the data folder")
    add_recipe(added)
    added.add_argument("--out", type=Path, help="draw photographs and masks into this picture")
    added.add_argument("--json", action="store_true", help="print JSON")

    help = "write a recipe for a folder of your own photographs and masks"
    added = add_command(commands, "plan", help, plan, True)
    added.add_argument("data", type=Path, help="the data folder")
    add_option(added, "--out", Path("my.toml"), "the recipe")
    minutes = between(0, 100_000, "a number of minutes")
    add_option(added, "--minutes", 30.0, "how long training may take here", type=minutes)
    help = "fix a setting that plan would choose; may be repeated"
    added.add_argument("--set", action="append", metavar="SECTION.KEY=VALUE", help=help)

    help = "draw training samples: image, augmented image, mask"
    added = add_command(commands, "look", help, look, True)
    add_recipe(added)
    add_option(added, "--data", Path("data"), "the data folder")
    add_option(added, "--out", Path("look.png"), "the picture")
    add_option(added, "--count", 4, "how many photographs", type=whole(1))

    help = "report on a run, or compare several, in one HTML file"
    added = add_command(commands, "report", help, report, True)
    help = "the run's folder; several: compare them"
    added.add_argument("--run", type=Path, action="extend", nargs="+", required=True, help=help)
    add_option(added, "--data", Path("data"), "the competition's files, for the pictures")

    help = "write a run's weights to a small file"
    added = add_command(commands, "weights", help, weights, True)
    added.add_argument("--run", type=Path, required=True, help="the run's folder")
    added.add_argument("--out", type=Path, required=True, help="the file, .npz")


def train(options) -> None:
    if options.cluster and not options.folds:
        raise UsageError("--cluster goes with --folds; a single run trains on one machine")
    for run, metrics in _trained(options):
        print(
            f"{run}: {plural(metrics['epochs'], 'epoch')}, {plural(metrics['steps'], 'step')}, "
            f"validation dice {metrics['val_dice']:.4f}, accuracy {metrics['val_accuracy']:.4f}"
        )
    runs = f"{options.run}/fold-*/" if options.folds else options.run
    print(f"next: `carvana predict` or `carvana report`, with --run {runs}")


def _trained(options):
    """Yield each run that is trained, and its metrics."""
    from carvana.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.set)
    data, run, cache = options.data, options.run, options.cache
    if not options.folds:
        from carvana.training.train import train

        yield run, train(recipe, data, run, cache=cache)
    elif not options.cluster:
        from carvana.training.folds import train_folds

        yield from train_folds(recipe, data, run, options.folds, cache=cache)
    else:
        from carvana.cluster.dask import open_cluster
        from carvana.cluster.folds import train_folds_on

        where = options.cluster
        with open_cluster(where) as client:
            yield from train_folds_on(client, where, recipe, data, run, options.folds, cache)


def inspect(options) -> int:
    from carvana.data.inspect import draw_sheet, inspect
    from carvana.data.pairs import match_pairs
    from carvana.data.provenance import check_sheet
    from carvana.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.set)
    if options.out:
        check_sheet(options.out)
    pairs, faults = match_pairs(options.data, recipe.data)
    result = inspect(pairs, faults, recipe)
    if options.json:
        print(json.dumps(vars(result)))
    else:
        print(f"{options.data}: {plural(result.pairs, 'photograph')} with masks")
        for title, counts in (("sizes", result.sizes), ("formats", result.formats)):
            print(f"{title}: " + ", ".join(f"{name} ({count})" for name, count in counts.items()))
        shares = (f"{name} {100 * share:.3g}%" for name, share in result.classes.items())
        print(f"pixels: {', '.join(shares)}")
        for line in (*result.warnings, *result.faults):
            print(f"  {line}")
        print(plural(len(result.faults), "fault") if result.faults else "no faults")
    if options.out:
        draw_sheet(pairs, recipe, options.out)
        if not options.json:
            print(f"{options.out}: photograph | mask")
    return 1 if result.faults else 0


def plan(options) -> None:
    from carvana.training.plan import write_plan

    planned = write_plan(options.data, options.out, options.minutes, options.set or [])
    data, size, training = planned.recipe.data, planned.recipe.input, planned.recipe.training
    print(
        f"{options.out}: {plural(planned.pairs, 'photograph')} in {data.images}, masks in "
        f"{data.masks} ({', '.join(data.classes) or 'one class'}), {size.width}x{size.height}, "
        f"{plural(training.epochs, 'epoch')}"
    )
    for line in planned.warnings:
        print(f"  {line}")
    print("read it, change what is wrong, then:", *planned.commands, sep="\n  ")


def look(options) -> None:
    from carvana.recipe import load_recipe
    from carvana.report.samples import draw_samples

    recipe = load_recipe(options.recipe, options.set)
    draw_samples(recipe, Paths(options.data), options.count, options.out)
    print(f"{options.out}: image | augmented image | mask")


def report(options) -> None:
    from carvana.report.compare import compare_runs
    from carvana.report.report import write_report

    paths = Paths(options.data)
    several = len(options.run) > 1
    print(compare_runs(options.run, paths) if several else write_report(options.run[0], paths))


def weights(options) -> None:
    from carvana.runs.trained import Run

    Run.load(options.run).save_weights(options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
