"""Kaggle both ways, through its official client: download, submit, wait, leaderboard.

The only module that knows the `kaggle` package, and nothing else here speaks to Kaggle. The
package is imported when first needed: importing it reads credentials and asks Kaggle about them.
"""

import bisect
import contextlib
import email.utils
import errno
import io
import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import requests
from tqdm import tqdm

from carvana import archives
from carvana.archives import BrokenArchive, disk_error, size_text
from carvana.competition import ANCHORS, SLUG, TEAMS, Paths
from carvana.errors import CarvanaError, UsageError, list_faults
from carvana.files import alone
from carvana.progress import LINE_SECONDS
from carvana.submission import validate

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

_Out = TypeVar("_Out")

PAGE = f"https://www.kaggle.com/competitions/{SLUG}"
RULES_PAGE = f"{PAGE}/rules"
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
PHONE_PAGE = "https://www.kaggle.com/settings"
STATUS_PAGE = "https://status.kaggle.com"
AGAIN = "then run the same command again: nothing done so far is lost"

FILES = {  # what each road needs
    "sample": ("sample_submission.csv.zip",),
    "test": ("test.zip", "sample_submission.csv.zip"),
    "train": ("train.zip", "train_masks.zip", "train_masks.csv.zip", "sample_submission.csv.zip"),
}
FILES["all"] = tuple(dict.fromkeys(FILES["train"] + FILES["test"]))

ATTEMPTS = 5  # in a row without any progress, before giving up
FIRST_DELAY = 2.0  # seconds before the second attempt, doubled for each one after it
MOST_DELAY = 120.0  # seconds; told to wait longer than this, we tell the user instead
STALL_SECONDS = 60  # without a byte, after which a transfer counts as dropped
POLL_SECONDS = 5.0  # between two looks at a pending submission
CHUNK = 2**16  # bytes; what a kill loses at most


class KaggleError(CarvanaError):
    """Kaggle did not do what it was asked.

    Attributes:
        passes: whether it may work when simply tried again.
        delay: seconds Kaggle told us to wait before that, None where it did not say.
    """

    def __init__(self, line: str, passes: bool = False, delay: float | None = None):
        super().__init__(line)
        self.passes, self.delay = passes, delay


@dataclass(frozen=True)
class Standing:
    """A place on the private leaderboard; 1 is the best."""

    place: int
    teams: int
    estimated: bool  # between the places we know by heart, for want of the board itself

    def __str__(self) -> str:
        source = " (estimated: the leaderboard could not be fetched)" if self.estimated else ""
        return f"would stand about {self.place} of {self.teams}{source}"


@dataclass(frozen=True)
class Result:
    """What came of a submission."""

    ref: int  # Kaggle's number of it
    public: float | None
    private: float | None
    standing: Standing | None  # None where there is no score to place


# ---- download


def download(paths: Paths, only: str = "train", source: Path | None = None) -> list[Path]:
    """Put the competition's files in place: fetch, check and unpack what is not there yet.

    Archives are fetched to `NAME.zip.part`, checked, renamed to `NAME.zip` and unpacked beside
    their place before they are renamed to it, so whatever stops it, the next call goes on and
    nothing half done is ever seen. The archives stay and may be deleted.

    Args:
        paths: the data folder.
        only: "train", "test", "all", or "sample" for the sample submission alone.
        source: a folder with the competition's archives, or with what they hold, to take them
            from in place of Kaggle.

    Returns:
        The folders and files put in place, none if all was there.

    Raises:
        UsageError: `only` or `source` is wrong.
        CarvanaError: one line saying what is wrong and what to do.
    """
    if only not in FILES:
        raise UsageError(f"--only {only}: is none of {', '.join(FILES)}")
    if source is not None and not source.is_dir():
        raise UsageError(f"--from {source}: no such folder")
    if source is not None and paths.root.absolute().is_relative_to(source.absolute()):
        raise UsageError(f"--from {source}: holds the data folder {paths.root}; give another")
    if not _missing(paths, only):
        _say(f"{paths.root}: all in place ({only}), nothing to fetch")
        return []
    try:
        with alone(paths.root, "download", paths.root / ".download.lock"):
            missing = _missing(paths, only)
            if source is None:
                _fetch_all(missing, paths.root)
            else:
                _take_all(missing, source, paths.root)
    except OSError as error:
        raise disk_error(paths.root, error) from error
    return [_target(name, paths.root) for name in missing]


def _missing(paths: Paths, only: str) -> list[str]:
    return [name for name in FILES[only] if not _is_there(_target(name, paths.root))]


def _target(name: str, root: Path) -> Path:
    """Return where what an archive holds belongs: `data/train` for `train.zip`."""
    return root / name.removesuffix(".zip")


def _is_there(target: Path) -> bool:
    if target.suffix:
        return target.is_file()
    return target.is_dir() and any(file.suffix in (".jpg", ".gif") for file in target.iterdir())


def _take_all(names: list[str], source: Path, root: Path) -> None:
    """Unpack archives that lie in a folder, or copy what was unpacked from them."""
    absent = [name for name in names if _in_source(name, source) is None]
    if absent:
        raise UsageError(
            f"--from {source}: holds neither {absent[0]} nor {_target(absent[0], Path()).name}; "
            f"give the folder with the competition's files ({PAGE}/data)"
        )
    needed = sum(_size_of_all(_in_source(name, source)) for name in names)
    free = archives.require_room(root, needed, ", ".join(names))
    _say(f"{root}: takes about {size_text(needed)} of {size_text(free)} free")
    for name in names:
        found, target = _in_source(name, source), _target(name, root)
        if found.name == name:
            archives.check(found)
            archives.unpack(found, target)
        else:
            _copy(found, target)
        _say(f"{target}: taken from {found}")


def _in_source(name: str, source: Path) -> Path | None:
    """Find an archive, or else what it holds: `train.zip`, `train/train` or `train`."""
    unpacked = _target(name, source)
    places = (source / name, unpacked / unpacked.name, unpacked)
    return next((place for place in places if place.exists() and _is_there(place)), None)


def _size_of_all(found: Path) -> int:
    """Sum the bytes of a file, or of a folder's files."""
    files = found.rglob("*") if found.is_dir() else (found,)
    return sum(_size(file) for file in files)


def _copy(found: Path, target: Path) -> None:
    with archives.temporary_beside(target) as temporary:
        if found.is_dir():
            shutil.copytree(found, temporary / target.name)
        else:
            shutil.copy2(found, temporary / target.name)
        os.replace(temporary / target.name, target)


def _fetch_all(names: list[str], root: Path) -> None:
    api = _connect()
    sizes = _sizes(api)
    if absent := [name for name in names if name not in sizes]:
        raise CarvanaError(f"{absent[0]}: Kaggle does not list it; see {PAGE}/data")
    here = [name for name in names if _is_whole(root / name, sizes[name])]
    parts = {n: min(_size(_part(root, n)), sizes[n]) for n in names if n not in here}
    to_fetch = sum(sizes[name] - part for name, part in parts.items())
    # Photographs do not shrink in a zip: what is unpacked is about as large again.
    needed = to_fetch + sum(sizes[name] for name in names)
    free = archives.require_room(root, needed, f"{', '.join(names)} (fetched and unpacked)")
    listed = ", ".join(f"{name} {size_text(sizes[name])}" for name in parts) or "nothing"
    kept = f", {size_text(sum(parts.values()))} of it here already" if any(parts.values()) else ""
    _say(
        f"{root}: to fetch: {listed}{kept}; takes about {size_text(needed)} of "
        f"{size_text(free)} free with what it unpacks to"
    )
    for name in names:
        if name in parts:
            _fetch(api, name, sizes[name], root)
        archives.unpack(root / name, _target(name, root))
        _say(f"{_target(name, root)}: ready")


def _sizes(api: "KaggleApi") -> dict[str, int]:
    """Ask Kaggle for the competition's files and their sizes in bytes."""
    sizes, token = {}, ""
    while True:
        page = _patiently(
            "the list of files",
            lambda token=token: api.competition_list_files(SLUG, page_token=token, page_size=100),
        )
        sizes |= {file.name: file.total_bytes for file in page.files}
        if not page.next_page_token or page.next_page_token == token:
            return sizes
        token = page.next_page_token


def _part(root: Path, name: str) -> Path:
    return root / f"{name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_whole(archive: Path, size: int) -> bool:
    """Tell whether an archive lies there already, of the size Kaggle lists, and sound."""
    if _size(archive) != size:
        return False
    try:
        archives.check(archive)
    except BrokenArchive as error:
        _say(f"{archive}: {error.reason}; fetching it again")
        return False
    return True


def _fetch(api: "KaggleApi", name: str, size: int, root: Path) -> None:
    """Fetch one archive, going on with a part of it, and put it in place once it is sound."""
    part = _part(root, name)
    for again in (True, False):
        if _size(part) != size:  # else an earlier run was stopped before it could check it
            _patiently(name, lambda: _transfer(api, name, part, size), lambda: _size(part))
        try:
            archives.check(part)
            break
        except BrokenArchive as error:
            # What an earlier run left may have been damaged: once more, from its first byte.
            _discard(part)
            if not again:
                raise CarvanaError(
                    f"{root / name}: fetched twice, and both times it {error.reason}; try later, "
                    f"or fetch it in a browser at {PAGE}/data and use --from FOLDER"
                ) from error
            _say(f"{name}: {error.reason}; fetching it once more from its beginning")
    if _size(part) != size:
        _say(f"{name}: {_size(part)} bytes, Kaggle lists {size}; its checksums hold, so it is used")
    os.replace(part, root / name)


def _transfer(api: "KaggleApi", name: str, part: Path, size: int) -> None:
    """Make one attempt at an archive.

    The client goes on with a part when its `.kaggle-partial` note beside the part names the file
    Kaggle has now. Three traps of `competition_download_file` (2.2) are kept out by calling what
    it is made of: it keeps any file as new as Kaggle's ("Skipping, ..."), broken or not; it
    retries for a minute unseen; and its first request has no time limit (see `_watched`).
    """
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest

    request = ApiDownloadDataFileRequest()
    request.competition_name, request.file_name = SLUG, name
    with api.build_kaggle_client() as kaggle:
        response = kaggle.competitions.competition_api_client.download_data_file(request)
        with response, _watched(part, name, size, response):
            try:
                api.download_file(
                    response,
                    str(part),
                    kaggle.http_client(),
                    resume=True,
                    chunk_size=CHUNK,
                    max_retries=0,
                    timeout=STALL_SECONDS,
                )
            except ValueError as error:
                # Another length than promised: when the client goes on with a part and is
                # answered by an error page, it writes that page into the file.
                if not isinstance(error, requests.RequestException):
                    _discard(part)
                    raise requests.ConnectionError("the transfer had a wrong length") from error
                raise


def _discard(part: Path) -> None:
    """Delete a part and the client's note of what it is a part of."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.kaggle-partial").unlink(missing_ok=True)


@contextlib.contextmanager
def _watched(part: Path, name: str, size: int, response: requests.Response) -> Iterator[None]:
    """Show how a transfer comes along by the growth of its file; end it if it stalls."""
    ended = threading.Event()

    def watch() -> None:
        on_terminal = sys.stderr.isatty()
        before = grown = time.monotonic()
        begun, last = _size(part), _size(part)
        bar = tqdm(
            desc=name, total=size, initial=begun, unit="B", unit_scale=True, disable=not on_terminal
        )
        with bar:
            while not ended.wait(0.5):
                now, here = time.monotonic(), _size(part)
                bar.update(here - last)
                if here != last:
                    last, grown = here, now
                elif now - grown > STALL_SECONDS:
                    with contextlib.suppress(ValueError, RuntimeError):
                        response.raw.shutdown()  # wakes the reader, which then finds it cut short
                if not on_terminal and now - before > LINE_SECONDS:
                    before = now
                    _say(f"{name}: {size_text(here)} of {size_text(size)}")
            bar.update(_size(part) - last)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# ---- submit


def submit(submission: Path, message: str, paths: Paths, wait_seconds: float = 900) -> Result:
    """Validate a submission, upload it and wait for its score.

    Args:
        submission: the CSV, plain, gzipped or zipped.
        message: what Kaggle is to show beside it.
        paths: the data folder; its sample submission is fetched if it is not there.
        wait_seconds: how long to wait for the score.

    Raises:
        CarvanaError: not valid (nothing is sent then), refused, its scoring failed, still pending
            after `wait_seconds`, or anything that can go wrong on the way to Kaggle.
    """
    if not submission.is_file():
        raise UsageError(f"{submission}: is no file; write it with `carvana predict`")
    api = _connect()
    if not paths.sample_submission.is_file():
        download(paths, only="sample")
    found = validate(submission, paths.sample_submission)
    if not found.valid:
        raise CarvanaError(list_faults(f"{submission}: not valid, so not sent", found.lines()))
    _say(f"{submission}: valid, uploading {size_text(_size(submission))}")
    ref = _upload(api, submission, message)
    try:
        public, private = _await_score(api, ref, wait_seconds)
    except KeyboardInterrupt:
        _say(
            f"{submission}: it is with Kaggle, do not send it again: its score will be at "
            f"{PAGE}/submissions"
        )
        raise
    value = public if private is None else private
    return Result(ref, public, private, None if value is None else _standing(api, value))


def _upload(api: "KaggleApi", submission: Path, message: str) -> int:
    """Upload and submit; return Kaggle's number of the submission."""

    def send():
        quiet = not sys.stderr.isatty()
        return api.competition_submit(str(submission), message, SLUG, quiet=quiet)

    try:
        response = _patiently(str(submission), send, lost="stop")
    except KaggleError as error:
        if isinstance(error.__cause__, requests.HTTPError):
            raise
        raise KaggleError(
            f"{submission}: the connection was lost while submitting; see at {PAGE}/submissions "
            "whether it arrived before you submit it again"
        ) from error
    if response.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        raise KaggleError(
            f"{submission}: the upload failed, nothing was submitted; see {STATUS_PAGE}, then "
            "run the same command again"
        )
    return response.ref


def _await_score(api: "KaggleApi", ref: int, limit: float) -> tuple[float | None, float | None]:
    """Look at a submission until it is scored; return its public and private score."""
    from kagglesdk.competitions.types.submission_status import SubmissionStatus

    begun = shown = time.monotonic()
    while True:
        try:
            state = _patiently("the list of submissions", lambda: _submission(api, ref))
        except KaggleError as error:
            raise KaggleError(
                f"submission {ref}: sent, do not send it again: its score will be at "
                f"{PAGE}/submissions; waiting for it failed: {str(error).split(';')[0]}"
            ) from error
        status = state.status if state else SubmissionStatus.PENDING
        if status == SubmissionStatus.COMPLETE:
            return _number(state.public_score), _number(state.private_score)
        if status == SubmissionStatus.ERROR:
            raise KaggleError(
                f"{state.file_name}: Kaggle took it but could not score it: "
                f"{state.error_description or 'no reason given'}; see {PAGE}/submissions"
            )
        now = time.monotonic()
        if now - begun > limit:
            raise KaggleError(
                f"submission {ref}: sent, but not scored after {limit:.0f} s; it is not lost: "
                f"its score will be at {PAGE}/submissions"
            )
        if shown == begun or now - shown > LINE_SECONDS:
            _say(f"sent; waiting for the score, {now - begun:.0f} s of at most {limit:.0f} s")
            shown = now
        time.sleep(min(POLL_SECONDS, limit))


def _submission(api: "KaggleApi", ref: int):
    """Find a submission by Kaggle's number, or the newest if it gave none; None if not listed."""
    latest = api.competition_submissions(SLUG) or []
    return next((each for each in latest if each.ref == ref or not ref), None)


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


# ---- leaderboard


def leaderboard() -> list[float]:
    """Fetch the leaderboard's scores, the private ones where the competition has ended.

    Returns:
        A score for each team, best first.

    Raises:
        KaggleError: it is not to be had.
    """
    return _leaderboard(_connect())


def standing(score: float) -> Standing:
    """Place a score on the leaderboard, or between `ANCHORS` where that cannot be fetched.

    Args:
        score: mean Dice on the private part.
    """
    try:
        return _standing(_connect(), score)
    except KaggleError:
        return _estimate(score)


def _standing(api: "KaggleApi", score: float) -> Standing:
    try:
        scores = _leaderboard(api)
    except KaggleError:
        return _estimate(score)
    ahead = bisect.bisect_left([-other for other in scores], -score)
    return Standing(min(ahead + 1, len(scores)), len(scores), estimated=False)


def _estimate(score: float) -> Standing:
    for (above, better), (below, worse) in itertools.pairwise(ANCHORS):
        if score >= worse:
            share = (better - min(score, better)) / (better - worse)
            return Standing(round(above + share * (below - above)), TEAMS, estimated=True)
    return Standing(TEAMS, TEAMS, estimated=True)


def _leaderboard(api: "KaggleApi") -> list[float]:
    from kagglesdk.competitions.types.competition_api_service import ApiGetLeaderboardRequest

    request = ApiGetLeaderboardRequest()
    request.competition_name, request.page_size = SLUG, 100

    def page():
        with api.build_kaggle_client() as kaggle:
            return kaggle.competitions.competition_api_client.get_leaderboard(request)

    scores = []
    while True:
        answer = _patiently("the leaderboard", page)
        scores += [_number(team.score) for team in answer.submissions if team.score]
        if not answer.next_page_token or answer.next_page_token == request.page_token:
            break
        request.page_token = answer.next_page_token
    if not scores or None in scores:
        raise KaggleError("the leaderboard: came without scores")
    return sorted(scores, reverse=True)


# ---- the client, its credentials and its troubles


def _connect() -> "KaggleApi":
    """Import the client and let it find and prove its credentials, which nobody else sees.

    Raises:
        KaggleError: there are none, or Kaggle does not accept them.
    """
    try:
        with _hushed():
            from kaggle.api.kaggle_api_extended import KaggleApi
    except OSError as error:
        raise KaggleError(
            f"{error.filename}: the Kaggle client cannot make its folder ({error.strerror}); set "
            "KAGGLE_CONFIG_DIR to a folder that can be written"
        ) from error
    api = KaggleApi()
    try:
        _patiently("the credentials", api.authenticate)
        # A legacy key is only ever proved by using it; so are the rules.
        _patiently("the competition", lambda: api.competition_list_files(SLUG, page_size=1))
        return api
    except SystemExit:  # how the client says that it found none it can use
        raise _no_credentials() from None
    except (TypeError, ValueError, IsADirectoryError):  # what it does with what is no credential
        raise KaggleError(
            "the Kaggle credentials cannot be read (a stray character or line end?); make a new "
            f"token at {TOKEN_PAGE} and put it in place of the old"
        ) from None


def _no_credentials() -> KaggleError:
    from kagglesdk.kaggle_env import get_access_token_from_env

    token, source = get_access_token_from_env()
    if token:
        where = "~/.kaggle/access_token" if source == "access_token" else source
        return KaggleError(f"{where}: {_BAD_CREDENTIALS}")
    return KaggleError(
        "no Kaggle credentials found. To get some:\n"
        f"  1. sign in and make a token at {TOKEN_PAGE}\n"
        "  2. save it as ~/.kaggle/access_token, or set KAGGLE_API_TOKEN to it\n"
        f"  3. accept the competition's rules at {RULES_PAGE}\n"
        "Without an account: `make demo`, or --from FOLDER with the competition's files."
    )


_BAD_CREDENTIALS = (
    "Kaggle does not accept these credentials (expired, revoked or mistyped); make a new token at "
    f"{TOKEN_PAGE} and save it as ~/.kaggle/access_token or in KAGGLE_API_TOKEN"
)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep what the client prints to itself; in its verbose mode that holds the credentials."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _patiently(
    what: str,
    work: Callable[[], _Out],
    progress: Callable[[], int] = lambda: 0,
    lost: str = "retry",
) -> _Out:
    """Do something that needs Kaggle, again and again while the trouble is of the passing kind.

    Args:
        what: is asked for, for the messages.
        work: does it.
        progress: tells how far it is; an attempt that got further does not count as failed.
        lost: "stop" not to try again when the connection is lost, for what must not be done twice.

    Raises:
        KaggleError: it did not work, even so.
    """
    failures = 0
    while True:
        before = progress()
        try:
            with _hushed():
                return work()
        except (requests.RequestException, OSError) as error:
            trouble = _explain(error, what)
            is_lost = getattr(error, "response", None) is None
            failures = 1 if progress() > before else failures + 1
            delay = FIRST_DELAY * 2 ** (failures - 1) if trouble.delay is None else trouble.delay
            hopeless = not trouble.passes or (is_lost and lost == "stop")
            if hopeless or failures >= ATTEMPTS or delay > MOST_DELAY:
                raise trouble from error
            brief = _brief(error, what)
        _say(f"{brief}; trying again in {delay:.0f} s ({failures} of {ATTEMPTS - 1})")
        time.sleep(delay)


def _brief(error: Exception, what: str) -> str:
    response = getattr(error, "response", None)
    if response is None:
        return f"{what}: the connection was lost"
    return f"{what}: Kaggle answered {_status(response)}"


def _explain(error: Exception, what: str) -> KaggleError:
    """Turn an error of the client into a line that says what to do about it.

    Nothing of the error's own text is shown, for it can hold a signed address, except what Kaggle
    itself says.
    """
    response = getattr(error, "response", None)
    if response is not None:
        return _explain_status(_status(response), response, what)
    if isinstance(error, requests.RequestException) or error.errno is None:
        return KaggleError(
            f"{what}: Kaggle cannot be reached; check the network (and HTTPS_PROXY, if you need "
            f"one), {AGAIN}",
            passes=True,
        )
    if error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNREFUSED):
        return KaggleError(f"{what}: the connection was lost; {AGAIN}", passes=True)
    return KaggleError(str(disk_error(Path(error.filename or what), error)))


def _explain_status(status: int, response: requests.Response, what: str) -> KaggleError:
    said = _said(response)
    quoted = f'; Kaggle says: "{said}"' if said else ""
    if status == 401:
        return KaggleError(f"{what}: {_BAD_CREDENTIALS} (401)")
    if status == 403 and any(word in said.lower() for word in ("phone", "verif")):
        return KaggleError(
            f"{what}: your account must be verified by phone first (403); do so at {PHONE_PAGE}, "
            f"then run the same command again{quoted}"
        )
    if status == 403:
        return KaggleError(
            f"{what}: Kaggle refuses (403); accept the competition's rules in a browser at "
            f"{RULES_PAGE} (and verify your phone at {PHONE_PAGE}), then run the same command "
            f"again{quoted}"
        )
    if status == 404:
        return KaggleError(
            f"{what}: Kaggle has no such competition or file (404); look at {PAGE}/data{quoted}"
        )
    if status == 429:
        delay = _retry_after(response)
        wait = "a few minutes" if delay is None else f"{delay:.0f} s"
        return KaggleError(
            f"{what}: too many requests (429); wait {wait}, {AGAIN}", passes=True, delay=delay
        )
    if status >= 500:
        return KaggleError(
            f"{what}: Kaggle has trouble of its own ({status}); see {STATUS_PAGE}, wait, {AGAIN}",
            passes=True,
        )
    return KaggleError(
        f"{what}: Kaggle refuses ({status}){quoted}; see {PAGE}, and {RULES_PAGE} if you have not "
        "joined the competition"
    )


def _status(response: requests.Response) -> int:
    """Return the status; Kaggle also sends errors with status 200 and a code in the body."""
    code = _body(response).get("code")
    return code if response.ok and isinstance(code, int) else response.status_code


def _said(response: requests.Response) -> str:
    """Return Kaggle's own words, on one line and not too many of them."""
    return " ".join(str(_body(response).get("message", "")).split())[:300]


def _body(response: requests.Response) -> dict:
    try:
        body = response.json()
    except (ValueError, RuntimeError, requests.RequestException):  # not JSON, or streamed away
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds a `Retry-After` header asks for: a number or a date (RFC 9110)."""
    text = response.headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return max(float(text), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
