"""Submissions by the real client to the mock server; each trouble a user can meet is a test."""

import socket

import pytest
from werkzeug.wrappers import Response

from carvana.errors import CarvanaError, UsageError
from carvana.kaggle.client import KaggleError
from carvana.kaggle.download import download
from carvana.kaggle.submit import _standing, submit
from carvana_sandbox.answers import refusal
from kaggle_fixtures import TEST_IMAGES, csv_bytes, instead, write_submission


@pytest.fixture
def ready(sandbox, served, paths):
    """A data folder with the sample submission."""
    download(paths, "sample", served)
    return paths


def test_submit_is_scored_and_placed(sandbox, ready, tmp_path, capsys):
    server = sandbox(pending_seconds=0.3)
    # Half of the second and third image's pixels are missed, the private part: dice 2/3.
    submission = tmp_path / "mine.csv"
    runs = ["10 20 2000 30", "10 20 2000 5", "10 20 2000 5", "1 1"]
    rows = [("img", "rle_mask"), *zip(TEST_IMAGES, runs, strict=True)]
    submission.write_bytes(csv_bytes(rows))
    result = submit(submission, "a message", ready)
    assert (result.ref, result.public, result.private) == (1, 1.0, 0.666667)
    assert result.standing == "would stand about 584 of 735"
    assert server.submissions[0].description == "a message"
    asked = [line for line in server.log if "GetLeaderboard" in line]
    assert len(asked) == 8  # a page each 100 teams
    output = capsys.readouterr().err
    assert "valid, uploading" in output
    assert "sent; waiting for the score" in output


def test_scores_at_the_ends_of_the_leaderboard_have_a_place(monkeypatch):
    def unreachable(api):
        raise KaggleError("not found (404)")

    monkeypatch.setattr("carvana.kaggle.submit._leaderboard", lambda api: [0.9, 0.8, 0.8])
    for score, place in ((0.95, 1), (0.9, 1), (0.8, 2), (-1, 3)):
        assert _standing(None, score) == f"would stand about {place} of 3"
    monkeypatch.setattr("carvana.kaggle.submit._leaderboard", unreachable)
    for score, place in ((0.999, 1), (0.988423, 511), (0.0, 735)):
        said = f"would stand about {place} of 735 (estimated: the leaderboard could not be fetched)"
        assert _standing(None, score) == said


def test_an_invalid_submission_is_not_sent(sandbox, ready, tmp_path):
    server = sandbox()
    with pytest.raises(CarvanaError, match="not valid, so not sent\n.*zero length, first at line"):
        submit(write_submission(tmp_path / "mine.csv", last="5 0"), "message", ready)
    with pytest.raises(UsageError, match="gone.csv: no such file"):
        submit(tmp_path / "gone.csv", "message", ready)
    assert not any("Upload" in line for line in server.log)


SUBMIT_FAULTS = {
    "400 on=CreateSubmission message='Daily limit reached'": (
        r'Kaggle refuses \(400\); Kaggle says: "Daily limit reached"; see .*/rules if you have not'
    ),
    "403 on=StartSubmissionUpload": r"accept the competition's rules in a browser at .*/rules",
    "failed message='Unexpected row'": "took it but could not score it: Unexpected row; see .*/sub",
    "pending": r"sent; do not submit it again: .* \(not scored after 1 s\)",
    "500 on=/upload/ times=0": "the upload failed, nothing was submitted; see https://status.kag",
    "503 on=ListSubmissions times=0": r"the list of submissions: Kaggle has a problem \(503\)",
    "503 on=CreateSubmission times=0": r"not known whether it was submitted.*problem \(503\)\)",
}


@pytest.mark.parametrize("fault", SUBMIT_FAULTS)
def test_trouble_with_a_submission(sandbox, ready, tmp_path, fault):
    sandbox(fault)
    submission = write_submission(tmp_path / "mine.csv")
    before = submission.read_bytes()
    with pytest.raises(KaggleError, match=SUBMIT_FAULTS[fault]) as raised:
        submit(submission, "message", ready, wait_seconds=1)
    assert "\n" not in str(raised.value)
    assert submission.read_bytes() == before


@pytest.mark.parametrize("trouble", ["504", "lost"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_submission_is_never_sent_twice_by_itself(sandbox, ready, tmp_path, trouble, listed):
    """Kaggle accepts it, and the answer says otherwise or never comes."""
    server = sandbox(pending_seconds=0)
    mine = write_submission(tmp_path / "mine.csv")
    assert submit(mine, "message", ready).ref == 1  # an earlier one, of the same name and message
    usual = server.answer

    def accept_and_fail(request):
        usual(request)
        if trouble == "lost":
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return refusal(504)

    instead(server, "CreateSubmission", accept_and_fail)
    if listed:
        result = submit(mine, "message", ready)
        assert (result.ref, result.public) == (2, 1.0)
    else:
        instead(server, "ListSubmissions", lambda _: server.submissions[1:] and refusal(503))
        with pytest.raises(KaggleError, match="not known whether it was submitted; check at"):
            submit(mine, "message", ready)
    assert len(server.submissions) == 2


def test_what_is_sent_is_not_lost_when_waiting_for_its_score_fails(sandbox, ready, tmp_path):
    server = sandbox()
    instead(server, "ListSubmissions", lambda _: server.submissions and refusal(503))
    with pytest.raises(KaggleError, match="sent; do not submit it again: its score will be at"):
        submit(write_submission(tmp_path / "mine.csv"), "message", ready)


def test_interrupted_while_waiting_for_the_score(sandbox, ready, tmp_path, monkeypatch, capsys):
    server = sandbox("pending")

    def press_ctrl_c(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("carvana.kaggle.submit.time.sleep", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        submit(write_submission(tmp_path / "mine.csv"), "message", ready)
    output = capsys.readouterr().err
    assert "mine.csv: sent; do not submit it again: its score will be at" in output
    assert len(server.submissions) == 1


@pytest.mark.parametrize(
    "faults",
    [
        ["503 on=ListSubmissions times=2", "429 on=StartSubmissionUpload times=2"],
        ["504 on=CreateSubmission times=2"],  # it did not arrive, and is sent again
    ],
)
def test_passing_trouble_is_waited_out(sandbox, paths, tmp_path, faults):
    server = sandbox(*faults)
    assert submit(write_submission(tmp_path / "mine.csv"), "message", paths).public == 1.0
    assert len(server.submissions) == 1
    assert paths.sample_submission.is_file()  # fetched, to validate by


def test_a_submission_not_listed_yet_is_pending(sandbox, ready, tmp_path):
    server = sandbox(pending_seconds=0)
    nothing = Response('{"submissions": []}', mimetype="application/json")
    answers = iter([None, nothing, nothing])  # before it is sent, and twice after that
    instead(server, "ListSubmissions", lambda _: next(answers, None))
    assert submit(write_submission(tmp_path / "mine.csv"), "message", ready).public == 1.0
    assert next(answers, None) is None
