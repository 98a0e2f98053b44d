"""A local stand-in for Kaggle: one competition, served from a folder on this machine's loopback.

It speaks what the official client uses for competitions, reading and writing the client package's
own message classes, so the client works against it unmodified. `Sandbox.environment` sends a
client here: `KAGGLE_API_ENVIRONMENT=LOCALHOST` makes its address `http://localhost`, and a proxy
setting brings that to our port, where requests arrive with the whole address in their first line.
"""

import contextlib
import csv
import datetime
import errno
import io
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from kagglesdk.competitions.types import competition_api_service as messages
from kagglesdk.competitions.types.submission_status import SubmissionStatus
from kagglesdk.kaggle_object import KaggleObject
from kagglesdk.security.types.oauth_service import IntrospectTokenRequest, IntrospectTokenResponse
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from carvana.competition import ANCHORS, SLUG
from carvana.errors import CarvanaError, UsageError
from carvana.score import score

USER = "sandbox"
SOLUTION = "solution.csv"  # the truth: scores by it, never hands it out
_SEND_BUFFER = 2**16  # bytes; small, so that what a client leaves unread is hardly sent at all
_STATUS_TEXTS = {
    400: "Submission not allowed: the file was refused",
    401: "Unauthenticated",
    403: "You must accept this competition's rules before you can continue",
    404: "Not found",
    429: "Too many requests",
    500: "Internal server error",
    503: "Service unavailable",
}


@dataclass
class Fault:
    """One way to misbehave.

    `kind` is a status to answer ("401", "503", ...), or "drop" (cut a transfer short), "hold"
    (stop sending, keep the connection), "flip" (damage one bit of a file), "pending" (never score
    a submission) or "failed" (fail its scoring). A refused submission is "400" on
    "CreateSubmission".
    """

    kind: str
    on: str = ""  # only where the request's path holds this: "train.zip", "ListDataFiles", ...
    times: int = 1  # how often; 0 for always
    after: int = 0  # bytes of a transfer that pass before "drop" or "hold"
    retry_after: str = ""  # that header, with a status
    message: str = ""  # what to say instead of the usual

    def stops_before(self, reached: int) -> bool:
        """Tell whether this ends a transfer before it has reached so many bytes."""
        return self.kind in ("drop", "hold") and self.after < reached

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read a fault from words: `503 times=2`, `drop on=train.zip after=100000`.

        Raises:
            UsageError: an unknown kind or setting.
        """
        try:
            kind, *settings = shlex.split(text) or [""]
        except ValueError as error:
            raise UsageError(f"fault {text!r}: {error}") from error
        status = kind.isdecimal() and 400 <= int(kind) <= 599
        if kind not in ("drop", "hold", "flip", "pending", "failed") and not status:
            raise UsageError(f"fault {text!r}: {kind!r} is neither a status nor a known kind")
        types = {field.name: field.type for field in fields(cls) if field.name != "kind"}
        values = {}
        for name, _, value in (setting.partition("=") for setting in settings):
            if name not in types or (types[name] is int and not value.isdecimal()):
                raise UsageError(f"fault {text!r}: {name}={value} is no setting of a fault")
            values[name] = types[name](value)
        return cls(kind, **values)


class Sandbox:
    """The server; it runs on a thread of its own while used in a `with` statement.

    >>> with Sandbox(Path("carvana-mini")) as sandbox:
    ...     subprocess.run(command, env=os.environ | sandbox.environment())

    Args:
        folder: the competition's archives and CSVs as Kaggle serves them, and `solution.csv`
            (`img,rle_mask,Usage`) to score by.
        port: on the loopback; 0 for any that is free.
        faults: how to misbehave, see `Fault`.
        pending_seconds: how long a submission waits for its score at least.

    Raises:
        UsageError: the folder has no files, or the port is taken.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        faults: Sequence[Fault] = (),
        pending_seconds: float = 1.0,
    ):
        self.folder = folder
        self.port = port
        self.faults = list(faults)
        self.pending_seconds = pending_seconds
        self.token = secrets.token_hex(16)  # opens nothing but this server
        self.log: list[str] = []  # a line for each request answered
        self.on_log: Callable[[str], None] = lambda line: None
        self.submissions: list[_Submission] = []  # newest first
        self._uploads: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        if not folder.is_dir() or not self._files():
            raise UsageError(f"{folder}: has no files to serve; give a folder with train.zip, ...")

    def __enter__(self) -> "Sandbox":
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(_listen(self.port))
            self.port = listener.getsockname()[1]
            # A home of its own, for the client reads and deletes credentials in the user's.
            self.home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-")))
            server = make_server(
                "127.0.0.1",
                self.port,
                Request.application(lambda request: self.answer(request)),
                threaded=True,
                request_handler=_QuietHandler,
                fd=listener.fileno(),
            )
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            stack.callback(self._closing.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def environment(self) -> dict[str, str]:
        """Return the variables that bring the official client here, and nowhere else.

        They take the place of the user's own credentials, home and proxy in the process they are
        given to; nothing is written to any of those. Requests to other hosts end here as well.
        """
        proxy = f"http://127.0.0.1:{self.port}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        proxies = dict.fromkeys((*names, *map(str.lower, names)), proxy)
        return proxies | {
            "NO_PROXY": "",
            "no_proxy": "",
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_API_TOKEN": self.token,
            "KAGGLE_API_V1_TOKEN": "",  # what a Kaggle notebook prefers to the token
            "KAGGLE_USERNAME": USER,
            "KAGGLE_KEY": self.token,
            "KAGGLE_CONFIG_DIR": str(self.home / ".kaggle"),
            "HOME": str(self.home),
            "USERPROFILE": str(self.home),
        }

    # ---- requests

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        where = request.path
        try:
            if request.host.partition(":")[0] != "localhost":
                raise NotFound(f"{request.host} is not to be reached from the sandbox")
            if fault := self._take(where, lambda fault: fault.kind.isdecimal()):
                response = _refusal(int(fault.kind), fault.message)
                if fault.retry_after:
                    response.headers["Retry-After"] = fault.retry_after
            else:
                response = self._route(request)
        except HTTPException as error:
            response = _refusal(error.code, error.description)
        ranged = request.headers.get("Range", "")
        line = f"{request.method} {where} {response.status_code} {ranged}".rstrip()
        self.log.append(line)
        self.on_log(line)
        return response

    def _route(self, request: Request) -> Response:
        match request.path.strip("/").split("/"), request.method:
            case ["api", "v1", service, method], "POST":
                return self._call(service, method, request)
            case ["storage", name], "GET":
                return self._send(name, request)
            case ["upload", token], "PUT" if token in self._uploads:
                with self._uploads[token].open("wb") as file:
                    shutil.copyfileobj(request.stream, file)
                return Response(status=200)
        raise NotFound()

    def _call(self, service: str, method: str, request: Request) -> Response:
        """Hand a message to its handler, and its answer back."""
        message_class, handle = _METHODS.get(f"{service}/{method}", (None, None))
        if handle is None:
            raise NotFound(f"the sandbox does not know {service}/{method}")
        if method != "IntrospectToken" and not self._is_known(request):
            return _refusal(401)
        message = message_class.from_dict(request.get_json(force=True))
        if getattr(message, "competition_name", SLUG) != SLUG:
            return _refusal(404, f"Competition {message.competition_name} not found")
        answered = handle(self, message)
        if isinstance(answered, KaggleObject):
            return Response(answered.to_json(), mimetype="application/json")
        return answered

    def _is_known(self, request: Request) -> bool:
        """Tell whether the request carries our token, or the same as a legacy key."""
        given = request.authorization
        return given is not None and self.token in (given.token, given.password)

    def _take(self, where: str, wanted: Callable[[Fault], bool]) -> Fault | None:
        """Find the first fault that applies, and count that it did."""
        with self._lock:
            for fault in self.faults:
                if wanted(fault) and fault.on in where:
                    if fault.times == 1:
                        self.faults.remove(fault)
                    fault.times = max(fault.times - 1, 0)
                    return fault
        return None

    # ---- files

    def _files(self) -> list[Path]:
        return sorted(
            path
            for path in self.folder.iterdir()
            if path.is_file() and path.name != SOLUTION and not path.name.startswith(".")
        )

    def _list_files(self, message: messages.ApiListDataFilesRequest) -> KaggleObject:
        answer = messages.ApiListDataFilesResponse()
        found, answer.next_page_token = _page(self._files(), message)
        answer.files = [_data_file(path) for path in found]
        return answer

    def _download_file(self, message: messages.ApiDownloadDataFileRequest) -> Response:
        """Redirect to where the bytes are, as Kaggle does: the client names the file by that."""
        if message.file_name not in [path.name for path in self._files()]:
            return _refusal(404, f"{message.file_name} not found")
        return Response(status=302, headers={"Location": f"/storage/{message.file_name}"})

    def _download_all(self, message: messages.ApiDownloadDataFilesRequest) -> Response:
        with self._lock:
            archive = self.home / f"{SLUG}.zip"
            if not archive.exists():
                with zipfile.ZipFile(archive, "w") as writer:
                    for path in self._files():
                        writer.write(path, path.name)
        return Response(status=302, headers={"Location": f"/storage/{SLUG}.zip"})

    def _send(self, name: str, request: Request) -> Response:
        """Send a file or the range asked for, with whatever goes wrong on the way."""
        known = {path.name: path for path in [*self._files(), self.home / f"{SLUG}.zip"]}
        if name not in known or not known[name].is_file():
            raise NotFound()
        path = known[name]
        size = path.stat().st_size
        response = send_file(path, request.environ, conditional=True)
        start = response.content_range.start if response.content_range else 0
        response.response = self._misbehave(response.response, name, start, size // 2)
        return response

    def _misbehave(
        self, chunks: Iterator[bytes], name: str, start: int, middle: int
    ) -> Iterator[bytes]:
        """Pass a file's bytes on until a fault applies to them.

        Args:
            start: where in the file they begin.
            middle: the byte of the file that "flip" damages.
        """
        flip = self._take(name, lambda fault: fault.kind == "flip")
        sent = 0
        with contextlib.closing(chunks):
            for chunk in chunks:
                place = middle - start - sent
                if flip and 0 <= place < len(chunk):
                    chunk = chunk[:place] + bytes([chunk[place] ^ 1]) + chunk[place + 1 :]
                reached = sent + len(chunk)
                stop = self._take(name, lambda fault, reached=reached: fault.stops_before(reached))
                if stop:
                    yield chunk[: max(stop.after - sent, 0)]
                    if stop.kind == "hold":
                        self._closing.wait()
                    raise ConnectionAbortedError(f"dropped {name}, as told")
                yield chunk
                sent = reached

    # ---- submissions

    def _start_upload(self, message: messages.ApiStartSubmissionUploadRequest) -> KaggleObject:
        token = secrets.token_hex(8)
        place = self.home / token / Path(message.file_name).name
        place.parent.mkdir()
        self._uploads[token] = place
        answer = messages.ApiStartSubmissionUploadResponse()
        answer.token, answer.create_url = token, f"http://localhost/upload/{token}"
        return answer

    def _create_submission(self, message: messages.ApiCreateSubmissionRequest) -> Response:
        upload = self._uploads.get(message.blob_file_tokens)
        if upload is None or not upload.is_file():
            return _refusal(400, "Submission not allowed: there is no such upload")
        with self._lock:
            ref = len(self.submissions) + 1
            submission = _Submission(ref, upload, message.submission_description or "")
            self.submissions.insert(0, submission)
        submission.ready_at = time.monotonic() + self.pending_seconds
        if self._take(upload.name, lambda fault: fault.kind == "pending"):
            submission.ready_at = float("inf")
        failed = self._take(upload.name, lambda fault: fault.kind == "failed")
        if failed:
            submission.error = failed.message or "Evaluation Exception"
        else:
            threading.Thread(target=submission.score, args=(self.folder,), daemon=True).start()
        answer = messages.ApiCreateSubmissionResponse()
        answer.message, answer.ref = f"Successfully submitted to {SLUG}", ref
        return answer

    def _list_submissions(self, message: messages.ApiListSubmissionsRequest) -> KaggleObject:
        answer = messages.ApiListSubmissionsResponse()
        found, answer.next_page_token = _page(self.submissions, message)
        answer.submissions = [submission.message() for submission in found]
        return answer

    def _get_submission(self, message: messages.ApiGetSubmissionRequest) -> KaggleObject:
        found = [submission for submission in self.submissions if submission.ref == message.ref]
        return found[0].message() if found else _refusal(404)

    def _limits(self, message: messages.ApiGetSubmissionLimitsRequest) -> KaggleObject:
        answer = messages.ApiSubmissionLimits()
        answer.num_today = answer.num_total = len(self.submissions)
        answer.num_allowed_now = 100
        return answer

    # ---- leaderboard; the competition has ended, so submissions do not enter it

    def _leaderboard(self, message: messages.ApiGetLeaderboardRequest) -> KaggleObject:
        answer = messages.ApiGetLeaderboardResponse()
        answer.submissions, answer.next_page_token = _page(_teams(), message)
        return answer

    def _download_leaderboard(self, message: messages.ApiDownloadLeaderboardRequest) -> Response:
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["Rank", "TeamId", "TeamName", "LastSubmissionDate", "Score"])
        for rank, team in enumerate(_teams(), 1):
            date = team.submission_date.isoformat(" ")
            writer.writerow([rank, team.team_id, team.team_name, date, team.score])
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{SLUG}-privateleaderboard.csv", table.getvalue())
        return Response(packed.getvalue(), mimetype="application/zip")

    def _introspect(self, message: IntrospectTokenRequest) -> KaggleObject:
        answer = IntrospectTokenResponse()
        answer.active = message.token == self.token
        answer.username = USER if answer.active else ""
        return answer


# The client's methods, each with the message it sends. Those of other services are not here.
_COMPETITIONS = "competitions.CompetitionApiService"
_METHODS = {
    "security.OAuthService/IntrospectToken": (IntrospectTokenRequest, Sandbox._introspect),
    **{
        f"{_COMPETITIONS}/{name}": entry
        for name, entry in {
            "ListDataFiles": (messages.ApiListDataFilesRequest, Sandbox._list_files),
            "DownloadDataFile": (messages.ApiDownloadDataFileRequest, Sandbox._download_file),
            "DownloadDataFiles": (messages.ApiDownloadDataFilesRequest, Sandbox._download_all),
            "StartSubmissionUpload": (
                messages.ApiStartSubmissionUploadRequest,
                Sandbox._start_upload,
            ),
            "CreateSubmission": (messages.ApiCreateSubmissionRequest, Sandbox._create_submission),
            "ListSubmissions": (messages.ApiListSubmissionsRequest, Sandbox._list_submissions),
            "GetSubmission": (messages.ApiGetSubmissionRequest, Sandbox._get_submission),
            "GetSubmissionLimits": (messages.ApiGetSubmissionLimitsRequest, Sandbox._limits),
            "GetLeaderboard": (messages.ApiGetLeaderboardRequest, Sandbox._leaderboard),
            "DownloadLeaderboard": (
                messages.ApiDownloadLeaderboardRequest,
                Sandbox._download_leaderboard,
            ),
        }.items()
    },
}


class _Submission:
    """A submission, pending until it is scored and its time has come."""

    def __init__(self, ref: int, path: Path, description: str):
        self.ref, self.path, self.description = ref, path, description
        self.date = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        self.ready_at = 0.0
        self.parts: dict[str, float] = {}
        self.error = ""

    def score(self, folder: Path) -> None:
        try:
            scored = score(self.path, folder / SOLUTION)
            self.parts = dict.fromkeys(("Public", "Private"), scored.mean) | scored.parts
        except CarvanaError as error:
            self.error = str(error).replace(f"{self.path.parent}{os.sep}", "")

    def message(self) -> messages.ApiSubmission:
        """Say how it stands in the client's own words."""
        answer = messages.ApiSubmission()
        answer.ref, answer.file_name, answer.date = self.ref, self.path.name, self.date
        answer.description, answer.total_bytes = self.description, self.path.stat().st_size
        answer.submitted_by = answer.team_name = USER
        if time.monotonic() < self.ready_at or not (self.parts or self.error):
            answer.status = SubmissionStatus.PENDING
        elif self.error:
            answer.status, answer.error_description = SubmissionStatus.ERROR, self.error
        else:
            answer.status = SubmissionStatus.COMPLETE
            answer.public_score = f"{self.parts['Public']:.6f}"
            answer.private_score = f"{self.parts['Private']:.6f}"
        return answer


class _QuietHandler(WSGIRequestHandler):
    """Leaves logging to the sandbox."""

    def log(self, type: str, message: str, *args) -> None:
        pass


def serve(
    folder: Path,
    port: int = 0,
    faults: Sequence[Fault] = (),
    pending_seconds: float = 5.0,
) -> None:
    """Serve a folder until Ctrl-C, saying how the official client gets here.

    Args:
        folder, port, faults, pending_seconds: see `Sandbox`.

    Raises:
        UsageError: the folder has no files, or the port is taken.
    """
    with Sandbox(folder, port, faults, pending_seconds) as sandbox:
        sandbox.on_log = lambda line: print(line, file=sys.stderr, flush=True)
        variables = shlex.join(f"{key}={value}" for key, value in sandbox.environment().items())
        print(f"{folder} as {SLUG} on 127.0.0.1:{sandbox.port}, until Ctrl-C. To use it, run:")
        print(f"env {variables} kaggle competitions files {SLUG}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up, too
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _listen(port: int) -> socket.socket:
    """Open the port on the loopback.

    Raises:
        UsageError: it is taken or not ours to open.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"cannot be opened ({error})"
        raise UsageError(f"port {port} {reason}; choose another, or 0 for any") from error


def _refusal(status: int, text: str | None = "") -> Response:
    """Refuse as Kaggle does: a JSON body with code and message."""
    body = {"code": status, "message": text or _STATUS_TEXTS.get(status, "Refused")}
    return Response(json.dumps(body), status=status, mimetype="application/json")


def _page(items: Sequence, message) -> tuple[list, str]:
    """Cut out the page a message asks for; also return the token of the next, "" at the end."""
    begin = int(message.page_token or 0)
    end = begin + (message.page_size or 20)
    return list(items[begin:end]), str(end) if end < len(items) else ""


def _data_file(path: Path) -> messages.ApiDataFile:
    answer = messages.ApiDataFile()
    answer.name = answer.ref = path.name
    answer.total_bytes = path.stat().st_size
    changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    answer.creation_date = changed.replace(tzinfo=None)
    return answer


def _teams() -> list[messages.ApiLeaderboardSubmission]:
    """Make up the board between the places that are known."""
    places, scores = zip(*ANCHORS, strict=True)
    teams = []
    for place in range(1, places[-1] + 1):
        team = messages.ApiLeaderboardSubmission()
        team.team_id, team.team_name = place, f"Team {place}"
        team.submission_date = datetime.datetime(2017, 9, 27)
        team.score = f"{np.interp(place, places, scores):.6f}"
        teams.append(team)
    return teams
