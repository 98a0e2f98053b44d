"""What the mock server answers with: the client package's own messages, and refusals."""

import csv
import datetime
import io
import json
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from kagglesdk.competitions.types import competition_api_service as messages
from kagglesdk.competitions.types.submission_status import SubmissionStatus
from werkzeug.wrappers import Response

from carvana.competition.facts import ANCHORS, SLUG
from carvana.competition.score import score
from carvana.errors import CarvanaError

USER = "sandbox"
SOLUTION = "solution.csv"  # the true masks: scores by them, never hands them out
_STATUS_TEXTS = {
    400: "Submission not allowed: the file was refused",
    401: "Unauthenticated",
    403: "You must accept this competition's rules before you can continue",
    404: "Not found",
    429: "Too many requests",
    500: "Internal server error",
    503: "Service unavailable",
}


class Submission:
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


def refusal(status: int, text: str | None = "") -> Response:
    """Refuse as Kaggle does: a JSON body with code and message."""
    body = {"code": status, "message": text or _STATUS_TEXTS.get(status, "Refused")}
    return Response(json.dumps(body), status=status, mimetype="application/json")


def page(items: Sequence, message) -> tuple[list, str]:
    """Cut out the page a message asks for; also return the token of the next, "" at the end."""
    begin = int(message.page_token or 0)
    end = begin + (message.page_size or 20)
    return list(items[begin:end]), str(end) if end < len(items) else ""


def data_file(path: Path) -> messages.ApiDataFile:
    answer = messages.ApiDataFile()
    answer.name = answer.ref = path.name
    answer.total_bytes = path.stat().st_size
    changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    answer.creation_date = changed.replace(tzinfo=None)
    return answer


def teams() -> list[messages.ApiLeaderboardSubmission]:
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


def leaderboard_zip() -> bytes:
    """Pack the board as a CSV in a zip."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["Rank", "TeamId", "TeamName", "LastSubmissionDate", "Score"])
    for rank, team in enumerate(teams(), 1):
        date = team.submission_date.isoformat(" ")
        writer.writerow([rank, team.team_id, team.team_name, date, team.score])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{SLUG}-privateleaderboard.csv", table.getvalue())
    return packed.getvalue()
