"""Commands without Kaggle: demo, sandbox serve, sandbox render."""

from pathlib import Path

from carvana.cli.options import add_command, add_option, whole


def add_commands(commands) -> None:
    """Add them to the parser."""
    help = "the whole pipeline without a Kaggle account, on rendered cars"
    added = add_command(commands, "demo", help, demo)
    add_option(added, "--data", Path("data"), "where the demo's files go")

    sandbox = commands.add_parser("sandbox", help="a local Kaggle: a mock server, rendered cars")
    actions = sandbox.add_subparsers(dest="action", required=True, metavar="ACTION")
    help = "serve a folder of competition files on this machine"
    added = add_command(actions, "serve", help, serve)
    added.add_argument("folder", type=Path, help="with the zips and solution.csv")
    add_option(added, "--port", 0, "the port; 0 picks a free one", type=int)
    add_option(added, "--pending", 5.0, "seconds until a submission is scored", type=float)
    added.add_argument(
        "--fault",
        action="append",
        help="misbehave: a status or drop, hold, flip, pending, failed, then on= times= after= "
        "retry_after= message=, as in 'drop on=train.zip after=100000 times=3'",
    )
    added = add_command(actions, "render", "render a competition of made-up cars", render)
    added.add_argument("folder", type=Path)
    add_option(added, "--train-cars", 24, "training cars, 16 photographs each", type=whole(1))
    add_option(added, "--test-cars", 4, "test cars", type=whole(1))
    add_option(added, "--seed", 1, "random seed of the cars", type=int)


def demo(options) -> None:
    from carvana_sandbox.demo import demo

    demo(options.data, Path("runs"), Path("submissions"))


def serve(options) -> None:
    from carvana_sandbox.faults import Fault
    from carvana_sandbox.serve import serve

    faults = [Fault.parse(text) for text in options.fault or []]
    serve(options.folder, options.port, faults, options.pending)


def render(options) -> None:
    from carvana_sandbox.cars.rendered import write_competition

    write_competition(options.folder, options.train_cars, options.test_cars, options.seed)
    print(f"{options.folder}: {options.train_cars} training cars, {options.test_cars} test cars")
