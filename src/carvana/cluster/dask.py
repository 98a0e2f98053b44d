"""A Dask cluster: connect to one or start one here, check its workers, run tasks on them."""

import contextlib
import logging
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError

from carvana import __version__
from carvana.backend import silence, tf, use_onednn
from carvana.errors import CarvanaError, UsageError, plural, raise_faults
from carvana.machine import cores

try:
    import dask
    import distributed
except ImportError as error:
    raise UsageError(
        f"--cluster needs Dask, and {error.name} is not installed; in the kit's folder run "
        "pip install -e '.[cluster]'"
    ) from error

CONNECT_SECONDS = 10
MOST_WORKERS = 64  # of one machine
# For tasks of minutes that hold the GIL and may run twice.
SETTINGS = {
    "distributed.scheduler.work-stealing": False,  # it has deadlocked (distributed #6689)
    "distributed.scheduler.worker-saturation": 1.0,  # what waits, waits at the scheduler
    "distributed.scheduler.worker-ttl": "30 minutes",  # a busy worker looks dead (#6324)
    "distributed.scheduler.allowed-failures": 10,  # workers that may die of a task
    "distributed.nanny.pre-spawn-environ": {},  # its malloc settings make large arrays slow
}


@contextlib.contextmanager
def open_cluster(where: str) -> Iterator[distributed.Client]:
    """Connect to a scheduler, or start workers on this machine for the time of the block.

    `where` is a scheduler's address, as in tcp://10.0.0.1:8786, or local:4 for four workers.

    Raises:
        UsageError: it is neither.
        CarvanaError: nothing answers there.
    """
    local = workers_of(where)
    remote = re.fullmatch(r"((tcp|tls|ws|wss)://)?(\[[\da-f:]+\]|[\w.-]+):\d{1,5}", where)
    if not (1 <= local <= MOST_WORKERS or (remote and not where.startswith("local:"))):
        raise UsageError(
            f"--cluster {where}: give a scheduler's address, as in tcp://10.0.0.1:8786, or "
            f"local:N for N workers on this machine, 1 to {MOST_WORKERS}"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        stack.enter_context(_silent())
        address = stack.enter_context(_local_cluster(local)) if local else where
        try:
            client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
            # MemoryError: what answers is no scheduler, and its bytes were taken for a length
            raise CarvanaError(
                f"{where}: no scheduler answers there ({_first_line(error)}); start one by "
                "`dask scheduler`, or use local:2"
            ) from error
        _warn_if_exposed(client)
        yield client


def _local_cluster(count: int) -> distributed.LocalCluster:
    numbers = {f"TF_NUM_{kind}_THREADS": share_of_cores(count) for kind in ("INTRAOP", "INTEROP")}
    return distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,  # spawned: TensorFlow does not survive a fork
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        env={key: value for key, value in numbers.items() if key not in os.environ},
    )


def workers_of(where: str) -> int:
    """Return N of local:N, 0 of an address."""
    local = re.fullmatch(r"local:(\d{1,5})", where)
    return int(local[1]) if local else 0


def share_of_cores(workers: int) -> int:
    """Return how many threads each of a machine's workers gets."""
    return max(cores() // workers, 1)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep Dask's own logs, which tell of every worker's death at length, from the terminal."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:  # Dask gives some of them a level of their own
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _warn_if_exposed(client: distributed.Client) -> None:
    address = client.scheduler_info()["address"]
    if not address.startswith("tls://") and not re.search(r"//(127\.|localhost|\[?::1)", address):
        print(
            f"{address}: is open to the network without TLS; Dask runs whatever it is sent, so "
            "keep others from this address (docs/many-machines.md)",
            file=sys.stderr,
        )


def wait_for_workers(client: distributed.Client, where: str, until: float = math.inf) -> int:
    """Wait until there is a worker; say how many there are and where Dask shows them.

    Returns:
        How many; 0 if there is none by `until`, by `time.monotonic`.
    """
    count = len(client.scheduler_info(n_workers=-1)["workers"])
    if not count:
        print(f"{where}: has no workers yet; waiting for the first", file=sys.stderr)
        left = until - time.monotonic()
        with contextlib.suppress(TimeoutError):
            client.wait_for_workers(1, timeout=None if math.isinf(left) else max(left, 0))
        count = len(client.scheduler_info(n_workers=-1)["workers"])
    workers = plural(count, "worker")
    print(f"{where}: {workers}; Dask's dashboard: {client.dashboard_link}", flush=True)
    return count


def prepare_worker() -> None:
    """Import TensorFlow on a worker, without its notes; on a GPU of its own where it has a number.

    Workers of local:N have numbers, those that others started have none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    use_onednn()
    number = distributed.get_worker().name
    with silence():
        gpus = tf.config.list_physical_devices("GPU")
        if isinstance(number, int) and len(gpus) > 1:
            tf.config.set_visible_devices(gpus[number % len(gpus)], "GPU")


def check_version(version: str) -> None:
    """Make sure, on a worker, that it has the client's version of the kit."""
    if version != __version__:
        raise CarvanaError(f"has carvana {__version__}, here is {version}; install the same")


def check_workers(client: distributed.Client, check: Callable, *arguments) -> None:
    """Run a check on every worker.

    Raises:
        CarvanaError: it raises on a worker; each is named with what it lacks.
    """
    faults = []
    for name, arguments_of in ((check_version, (__version__,)), (check, arguments)):
        results = client.run(name, *arguments_of, on_error="return")
        for worker, result in sorted(results.items()):
            if isinstance(result, CarvanaError):
                faults.append(f"worker {worker}: {result}")
            elif isinstance(result, Exception) and not isinstance(result, OSError):
                # an OSError: it has just died, and another takes its place
                faults.append(
                    f"worker {worker}: cannot run carvana {__version__} ({_first_line(result)}); "
                    "install it there"
                )
        if faults:
            break
    raise_faults(f"{len(faults)} workers cannot take part:", faults)


def run_tasks(
    client: distributed.Client, function: Callable, tasks: Sequence[tuple], until: float = math.inf
) -> Iterator[tuple[tuple, object]]:
    """Call a function on workers with each tuple of arguments.

    It is imported there by its name, and may be called twice for a task. `until` is when to stop
    waiting, by `time.monotonic`.

    Yields:
        A task and its result, or the exception where its workers died; in the order they end.

    Raises:
        CarvanaError: the connection to the scheduler is lost; and what a task raises.
    """
    token = uuid.uuid4().hex[:12]
    futures = {
        client.submit(function, *task, key=(f"carvana-{token}", number), pure=False): task
        for number, task in enumerate(tasks)
    }
    left = None if math.isinf(until) else max(until - time.monotonic(), 0)
    ended = distributed.as_completed(futures, raise_errors=False, timeout=left)
    while True:
        try:
            future = next(ended)
        except (StopIteration, TimeoutError):  # the waiting's; a task's own is raised below
            return
        yield futures.pop(future), _result(future)


def _result(future: distributed.Future) -> object:
    try:
        return future.result()
    except distributed.scheduler.KilledWorker as error:
        return error
    except (CancelledError, distributed.comm.CommClosedError) as error:
        raise CarvanaError(
            "the connection to the scheduler is lost; start it and its workers, then run the same "
            "command again: what was made is kept"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
