"""A mock server of Kaggle: one competition, served from a folder on this machine's loopback.

It speaks what the official client uses for competitions, reading and writing the client package's
own message classes, so the client works against it unmodified. `Sandbox.environment` sends a
client here: `KAGGLE_API_ENVIRONMENT=LOCALHOST` makes its address `http://localhost`, and a proxy
setting brings that to our port, where requests arrive with the whole address in their first line.
"""

import contextlib
import errno
import secrets
import shutil
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from kagglesdk.competitions.types import competition_api_service as messages
from kagglesdk.kaggle_object import KaggleObject
from kagglesdk.security.types.oauth_service import IntrospectTokenRequest, IntrospectTokenResponse
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from carvana.competition.facts import SLUG
from carvana.errors import UsageError
from carvana_sandbox.answers import (
    SOLUTION,
    USER,
    Submission,
    data_file,
    leaderboard_zip,
    page,
    refusal,
    teams,
)
from carvana_sandbox.faults import Fault, Faults

_SEND_BUFFER = 2**16  # bytes; small, so that what a client leaves unread is hardly sent at all


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
        self.faults = Faults(faults)
        self.pending_seconds = pending_seconds
        self.token = secrets.token_hex(16)  # opens nothing but this server
        self.log: list[str] = []  # a line for each request answered
        self.on_log: Callable[[str], None] = lambda line: None
        self.submissions: list[Submission] = []  # newest first
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
                raise NotFound(f"{request.host} cannot be reached from the sandbox")
            if fault := self.faults.take(where, "status"):
                response = refusal(int(fault.kind), fault.message)
                if fault.retry_after:
                    response.headers["Retry-After"] = fault.retry_after
            else:
                response = self._route(request)
        except HTTPException as error:
            response = refusal(error.code, error.description)
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
            return refusal(401)
        message = message_class.from_dict(request.get_json(force=True))
        if getattr(message, "competition_name", SLUG) != SLUG:
            return refusal(404, f"Competition {message.competition_name} not found")
        answered = handle(self, message)
        if isinstance(answered, KaggleObject):
            return Response(answered.to_json(), mimetype="application/json")
        return answered

    def _is_known(self, request: Request) -> bool:
        """Tell whether the request carries our token, or the same as a legacy key."""
        given = request.authorization
        return given is not None and self.token in (given.token, given.password)

    # ---- files

    def _files(self) -> list[Path]:
        return sorted(
            path
            for path in self.folder.iterdir()
            if path.is_file() and path.name != SOLUTION and not path.name.startswith(".")
        )

    def _list_files(self, message: messages.ApiListDataFilesRequest) -> KaggleObject:
        answer = messages.ApiListDataFilesResponse()
        found, answer.next_page_token = page(self._files(), message)
        answer.files = [data_file(path) for path in found]
        return answer

    def _download_file(self, message: messages.ApiDownloadDataFileRequest) -> Response:
        """Redirect to where the bytes are, as Kaggle does: the client names the file by that."""
        if message.file_name not in [path.name for path in self._files()]:
            return refusal(404, f"{message.file_name} not found")
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
        response.accept_ranges = "bytes"  # Werkzeug 3.0 says it of parts only
        start = response.content_range.start if response.content_range else 0
        response.response = self.faults.applied(
            response.response, name, start, size // 2, self._closing
        )
        return response

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
            return refusal(400, "Submission not allowed: there is no such upload")
        with self._lock:
            ref = len(self.submissions) + 1
            submission = Submission(ref, upload, message.submission_description or "")
            self.submissions.insert(0, submission)
        submission.ready_at = time.monotonic() + self.pending_seconds
        if self.faults.take(upload.name, "pending"):
            submission.ready_at = float("inf")
        failed = self.faults.take(upload.name, "failed")
        if failed:
            submission.error = failed.message or "Evaluation Exception"
        else:
            threading.Thread(target=submission.score, args=(self.folder,), daemon=True).start()
        answer = messages.ApiCreateSubmissionResponse()
        answer.message, answer.ref = f"Successfully submitted to {SLUG}", ref
        return answer

    def _list_submissions(self, message: messages.ApiListSubmissionsRequest) -> KaggleObject:
        answer = messages.ApiListSubmissionsResponse()
        found, answer.next_page_token = page(self.submissions, message)
        answer.submissions = [submission.message() for submission in found]
        return answer

    def _get_submission(self, message: messages.ApiGetSubmissionRequest) -> KaggleObject:
        matching = [submission for submission in self.submissions if submission.ref == message.ref]
        return matching[0].message() if matching else refusal(404)

    def _limits(self, message: messages.ApiGetSubmissionLimitsRequest) -> KaggleObject:
        answer = messages.ApiSubmissionLimits()
        answer.num_today = answer.num_total = len(self.submissions)
        answer.num_allowed_now = 100
        return answer

    # ---- leaderboard; the competition has ended, so submissions do not enter it

    def _leaderboard(self, message: messages.ApiGetLeaderboardRequest) -> KaggleObject:
        answer = messages.ApiGetLeaderboardResponse()
        answer.submissions, answer.next_page_token = page(teams(), message)
        return answer

    def _download_leaderboard(self, message: messages.ApiDownloadLeaderboardRequest) -> Response:
        return Response(leaderboard_zip(), mimetype="application/zip")

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


class _QuietHandler(WSGIRequestHandler):
    """Leaves logging to the sandbox."""

    def log(self, type: str, message: str, *args) -> None:
        pass


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
