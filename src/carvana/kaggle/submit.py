"""Submit: validate, upload, wait for the score, find its place on the leaderboard."""

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import requests

from carvana.competition.facts import ANCHORS, SLUG, TEAMS, Paths
from carvana.competition.submission import validate
from carvana.errors import CarvanaError, UsageError, list_faults
from carvana.kaggle.archives import size_text
from carvana.kaggle.client import PAGE, STATUS_PAGE, KaggleError, connect, pages, say, with_retries
from carvana.kaggle.download import download
from carvana.progress import LINE_SECONDS, on_terminal

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

POLL_SECONDS = 5.0  # between two checks of a pending submission, at most
SUBMISSIONS = f"{PAGE}/submissions"
_SENT = f"sent; do not submit it again: its score will be at {SUBMISSIONS}"


@dataclass(frozen=True)
class Result:
    """The scores of a submission."""

    ref: int  # Kaggle's number of it
    public: float | None
    private: float | None
    standing: str | None  # its place on the private leaderboard; None without a score


def submit(submission: Path, message: str, paths: Paths, wait_seconds: float = 900) -> Result:
    """Validate a submission, upload it and wait for its score.

    The sample submission is fetched if it is not in the data folder.

    Raises:
        CarvanaError: not valid (nothing is sent then), refused, its scoring failed, still pending
            after `wait_seconds`, or Kaggle cannot be reached.
    """
    if not submission.is_file():
        raise UsageError(f"{submission}: no such file; write it with `carvana predict`")
    api = connect()
    if not paths.sample_submission.is_file():
        download(paths, only="sample")
    result = validate(submission, paths.sample_submission)
    if result.faults:
        raise CarvanaError(list_faults(f"{submission}: not valid, so not sent", result.lines()))
    say(f"{submission}: valid, uploading {size_text(submission.stat().st_size)}")
    ref = _upload(api, submission, message)
    try:
        public, private = _await_score(api, ref, wait_seconds)
    except KeyboardInterrupt:
        say(f"{submission}: {_SENT}")
        raise
    value = public if private is None else private
    return Result(ref, public, private, None if value is None else _standing(api, value))


def _upload(api: "KaggleApi", submission: Path, message: str) -> int:
    """Upload and submit, once; return Kaggle's number of the submission.

    An answer that says it failed, or none at all, may come of a submission that was accepted: it is
    looked for in the list of submissions before anything is sent again.
    """
    before = {each.ref for each in with_retries("the list of submissions", lambda: _listed(api))}
    sent = False

    def arrived() -> int | None:
        for each in _listed(api):
            mine = (each.file_name, each.description) == (submission.name, message)
            if mine and each.ref not in before:
                return each.ref
        return None

    def send() -> int:
        nonlocal sent
        if sent and (ref := arrived()) is not None:
            return ref
        sent, quiet = True, not on_terminal(sys.stderr)
        response = api.competition_submit(str(submission), message, SLUG, quiet=quiet)
        if response.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            raise KaggleError(
                f"{submission}: the upload failed, nothing was submitted; see {STATUS_PAGE}, then "
                "run the same command again"
            )
        return response.ref

    try:
        return with_retries(str(submission), send, lost="stop")
    except KaggleError as error:
        if not error.retryable:
            raise
        time.sleep(POLL_SECONDS)  # what was accepted may be listed late
        with contextlib.suppress(requests.RequestException, OSError):
            if (ref := arrived()) is not None:
                return ref
        raise KaggleError(
            f"{submission}: it is not known whether it was submitted; check at {SUBMISSIONS} "
            f"before you submit it again ({str(error).split(';')[0]})"
        ) from error


def _listed(api: "KaggleApi") -> list:
    """Return the newest submissions."""
    return api.competition_submissions(SLUG) or []


def _await_score(api: "KaggleApi", ref: int, limit: float) -> tuple[float | None, float | None]:
    """Wait until a submission is scored; return its public and private score."""
    from kagglesdk.competitions.types.submission_status import SubmissionStatus

    began = shown = time.monotonic()
    while True:
        try:
            listed = with_retries("the list of submissions", lambda: _listed(api))
        except KaggleError as error:
            reason = str(error).split(";")[0]
            raise KaggleError(f"submission {ref}: {_SENT} (waiting failed: {reason})") from error
        # The newest if Kaggle gave no number; it may be listed late.
        state = next((each for each in listed if each.ref == ref or not ref), None)
        status = state.status if state else SubmissionStatus.PENDING
        if status == SubmissionStatus.COMPLETE:
            return _number(state.public_score), _number(state.private_score)
        if status == SubmissionStatus.ERROR:
            raise KaggleError(
                f"{state.file_name}: Kaggle took it but could not score it: "
                f"{state.error_description or 'no reason given'}; see {SUBMISSIONS}"
            )
        now = time.monotonic()
        if now - began > limit:
            raise KaggleError(f"submission {ref}: {_SENT} (not scored after {limit:.0f} s)")
        if shown == began or now - shown > LINE_SECONDS:
            say(f"sent; waiting for the score, {now - began:.0f} s of at most {limit:.0f} s")
            shown = now
        time.sleep(min(POLL_SECONDS, max(now - began, 1), limit))


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _standing(api: "KaggleApi", score: float) -> str:
    try:
        scores = _leaderboard(api)
    except KaggleError:
        places, known = zip(*ANCHORS, strict=True)
        place = np.interp(-score, -np.array(known), places)
        why = "estimated: the leaderboard could not be fetched"
        return f"would stand about {place:.0f} of {TEAMS} ({why})"
    ahead = sum(other > score for other in scores)
    return f"would stand about {min(ahead + 1, len(scores))} of {len(scores)}"


def _leaderboard(api: "KaggleApi") -> list[float]:
    """Return the scores of all teams, best first."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetLeaderboardRequest

    def page(token: str):
        request = ApiGetLeaderboardRequest()
        request.competition_name, request.page_size, request.page_token = SLUG, 100, token
        with api.build_kaggle_client() as kaggle:
            return kaggle.competitions.competition_api_client.get_leaderboard(request)

    scores = []
    for answer in pages("the leaderboard", page):
        scores += [_number(team.score) for team in answer.submissions if team.score]
    if not scores or None in scores:
        raise KaggleError("the leaderboard: came without scores")
    return sorted(scores, reverse=True)
