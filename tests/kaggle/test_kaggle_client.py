"""The real client against the stand-in; each trouble a user can meet is a test."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import kaggle_fixtures
import pytest
import requests
from carvana.kaggle_client import CHUNK, KaggleError, Standing, download, submit
from kaggle_fixtures import (
    TEST_IMAGES,
    csv_bytes,
    download_call,
    run_client,
    start_client,
    write_submission,
    write_zip,
)
from test_archives import DAMAGES

from carvana import archives, kaggle_client
from carvana.competition import SLUG, Paths
from carvana.errors import CarvanaError, UsageError
from carvana.sandbox.server import Fault

paths, sandbox, served = kaggle_fixtures.paths, kaggle_fixtures.sandbox, kaggle_fixtures.served


HELD = 30 * CHUNK  # bytes of train.zip that are written when the server holds it there


def files_in(root: Path) -> dict[str, bytes]:
    """Read every file under a folder but the lock."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".download.lock"
    }


def assert_train_is_there(root: Path, served: Path) -> None:
    found = files_in(root)
    for name in kaggle_client.FILES["train"]:
        assert found.pop(name) == (served / name).read_bytes()
        with zipfile.ZipFile(served / name) as archive:
            for member in archive.namelist():
                assert found.pop(member) == archive.read(member)
    assert not found


# ---- download


def test_download_puts_all_in_place_and_then_does_nothing(sandbox, served, paths, capsys):
    server = sandbox()
    ready = download(paths, "train")
    assert ready == [paths.train, paths.train_masks, paths.train_masks_csv, paths.sample_submission]
    assert_train_is_there(paths.root, served)
    output = capsys.readouterr()
    assert "train.zip 4 MB" in output.err
    assert "free with what it unpacks to" in output.err
    assert output.out == ""
    server.log.clear()
    assert download(paths, "train") == []
    assert server.log == []  # not even the credentials were asked for
    assert "all in place (train), nothing to fetch" in capsys.readouterr().err


def test_download_fetches_only_what_is_missing(sandbox, served, paths):
    server = sandbox()
    assert download(paths, "sample") == [paths.sample_submission]
    assert download(paths, "all")[-1] == paths.test
    stored = [line for line in server.log if "/storage/" in line]
    names = ("sample_submission.csv", "train", "train_masks", "train_masks.csv", "test")
    assert stored == [f"GET /storage/{name}.zip 200" for name in names]


def test_an_archive_that_lies_there_is_used_if_it_is_sound(sandbox, served, paths, capsys):
    server = sandbox()
    paths.root.mkdir()
    whole = (served / "train.zip").read_bytes()
    (paths.root / "train.zip").write_bytes(whole)
    masks = bytearray((served / "train_masks.zip").read_bytes())
    masks[20_000] ^= 1  # as new as Kaggle's and of its size: the client alone would keep it
    (paths.root / "train_masks.zip").write_bytes(masks)
    (paths.root / "train_masks.csv.zip").write_bytes(b"too short")
    download(paths, "train")
    assert_train_is_there(paths.root, served)
    assert not any("/storage/train.zip" in line for line in server.log)
    assert "damaged" in capsys.readouterr().err


def test_wrong_use_is_told(paths, tmp_path):
    with pytest.raises(UsageError, match="--only tests: is none of sample, test, train, all"):
        download(paths, "tests")
    with pytest.raises(UsageError, match="--from .*gone: no such folder"):
        download(paths, "train", tmp_path / "gone")


def test_killed_at_ten_random_bytes_then_rerun(sandbox, served, paths):
    server = sandbox()
    whole = (served / "train.zip").read_bytes()
    part = paths.root / "train.zip.part"
    stops = sorted(random.Random(3).sample(range(CHUNK, len(whole)), 10))
    sizes = [0]  # of the part before each run
    for stop in stops:
        server.faults = parse_faults(f"hold on=train.zip times=0 after={stop - sizes[-1]}")
        # The client writes chunk by chunk, so a kill loses less than one.
        expected = sizes[-1] + (stop - sizes[-1]) // CHUNK * CHUNK
        with start_client(download_call(paths), server.environment()) as process:
            asked = len(ranges_asked(server)) + bool(sizes[-1])
            wait_until(
                lambda asked=asked, expected=expected: (
                    len(ranges_asked(server)) == asked and size_of(part) == expected
                ),
                process,
            )
            process.kill()
        assert part.read_bytes() == whole[:expected]
        assert not paths.train.exists()
        sizes.append(expected)
    server.faults.clear()
    code, output = run_client(download_call(paths), server.environment())
    assert code == 0, output
    assert_train_is_there(paths.root, served)
    assert ranges_asked(server) == [f"{size}-" for size in sizes[1:]]  # nothing it had already


def size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def ranges_asked(server) -> list[str]:
    return [line.rsplit("=")[1] for line in server.log if "train.zip 206" in line]


def parse_faults(*faults: str) -> list[Fault]:
    return [Fault.parse(fault) for fault in faults]


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the client ended: {process.communicate()[0]}")
        time.sleep(0.01)


def test_stopped_between_fetching_and_checking(sandbox, served, paths):
    server = sandbox()
    paths.root.mkdir()
    shutil.copy(served / "train.zip", paths.root / "train.zip.part")
    broken = os.urandom((served / "train_masks.zip").stat().st_size)
    (paths.root / "train_masks.zip.part").write_bytes(broken)
    download(paths)
    assert_train_is_there(paths.root, served)
    assert not any("/storage/train.zip" in line for line in server.log)


def test_interrupted_and_rerun(sandbox, served, paths):
    server = sandbox(f"hold on=train.zip times=0 after={HELD + 1000}")
    part = paths.root / "train.zip.part"
    with start_client(download_call(paths), server.environment()) as process:
        wait_until(lambda: size_of(part) == HELD, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode != 0
    server.faults.clear()
    download(paths)
    assert_train_is_there(paths.root, served)
    assert f"GET /storage/train.zip 206 bytes={HELD}-" in server.log


def test_dropped_three_times_in_one_file(sandbox, served, paths, capsys):
    server = sandbox("drop on=train.zip after=1000000 times=3")
    download(paths)
    assert_train_is_there(paths.root, served)
    each = 1_000_000 // CHUNK * CHUNK
    assert ranges_asked(server) == [f"{each}-", f"{2 * each}-", f"{3 * each}-"]
    assert capsys.readouterr().err.count("train.zip: the connection was lost; trying again") == 3


def test_a_stalled_transfer_is_ended_and_resumed(sandbox, served, paths, monkeypatch):
    monkeypatch.setattr(kaggle_client, "STALL_SECONDS", 1)
    server = sandbox("hold on=train.zip after=1000000", "hold on=train.zip after=500000")
    download(paths)
    assert_train_is_there(paths.root, served)
    assert len(ranges_asked(server)) == 2


def test_an_error_page_never_ends_up_in_a_file(sandbox, served, paths):
    """The client, going on with a part, writes what it is answered into it, whatever it is."""
    server = sandbox("drop on=train.zip after=1000000")
    answer = server.answer

    def refuse_ranges(request):
        if request.path.endswith("/train.zip") and "Range" in request.headers:
            server.faults += parse_faults("503 on=/storage/train.zip times=2")
        return answer(request)

    server.answer = refuse_ranges
    download(paths)
    assert_train_is_there(paths.root, served)
    asked = [line.split(" ", 2)[2] for line in server.log if "/storage/train.zip" in line]
    part = 1_000_000 // CHUNK * CHUNK
    # Cut short; going on: the first look, the refusal, the refusal that was written; all anew.
    assert asked == ["200", "200", f"503 bytes={part}-", "503", "200"]


@pytest.mark.parametrize(
    "fault", ["429 retry_after=0", "429 retry_after=0.3", "429", "500", "503", "502"]
)
@pytest.mark.parametrize("on", ["ListDataFiles", "/storage/train.zip", "IntrospectToken"])
def test_passing_trouble_is_waited_out(sandbox, served, paths, capsys, fault, on):
    sandbox(f"{fault} on={on} times=2")
    begun = time.monotonic()
    download(paths)
    assert_train_is_there(paths.root, served)
    assert capsys.readouterr().err.count(f"Kaggle answered {fault[:3]}; trying again in") == 2
    if "0.3" in fault:
        assert time.monotonic() - begun > 0.6


STATUSES = {
    "401 on=ListDataFiles": "make a new token at https://www.kaggle.com/settings/api",
    "403 on=DownloadDataFile": f"rules in a browser at https://www.kaggle.com/competitions/{SLUG}/rules",
    "403 on=DownloadDataFile message='You must verify your phone'": (
        "verified by phone first (403); do so at https://www.kaggle.com/settings"
    ),
    "404 on=ListDataFiles": f"look at https://www.kaggle.com/competitions/{SLUG}/data",
    "429 times=0 on=DownloadDataFile": "too many requests (429); wait a few minutes",
    "429 times=0 on=DownloadDataFile retry_after=900": "too many requests (429); wait 900 s",
    "500 times=0 on=/storage/train.zip": "trouble of its own (500); see https://status.kaggle.com",
    "503 times=0 on=ListDataFiles": "trouble of its own (503); see https://status.kaggle.com",
    "418 on=ListDataFiles": "Kaggle refuses (418)",
}


@pytest.mark.parametrize("fault", STATUSES)
def test_lasting_trouble_is_one_line_with_a_remedy(sandbox, served, paths, fault):
    paths.root.mkdir()
    (paths.root / "sample_submission.csv").write_text("as before")
    part = paths.root / "train.zip.part"
    sandbox("drop on=train.zip after=2000000")
    with pytest.raises(KaggleError), pytest.MonkeyPatch.context() as once:
        once.setattr(kaggle_client, "ATTEMPTS", 1)
        download(paths)
    before = files_in(paths.root)
    assert len(before["train.zip.part"]) > 1_900_000
    sandbox(fault)
    with pytest.raises(KaggleError) as raised:
        download(paths)
    assert STATUSES[fault] in str(raised.value)
    assert "\n" not in str(raised.value)
    assert files_in(paths.root) == before
    assert part.exists()


def test_network_gone(sandbox, paths, monkeypatch, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    sandbox()
    monkeypatch.setenv("http_proxy", nowhere)
    monkeypatch.setenv("HTTP_PROXY", nowhere)
    with pytest.raises(KaggleError, match="Kaggle cannot be reached; check the network"):
        download(paths)
    assert capsys.readouterr().err.count("the connection was lost; trying again in") == 4


def bad_archives() -> list:
    return [damage for damages in DAMAGES.values() for damage in damages]


@pytest.mark.parametrize("damage", bad_archives(), ids=lambda damage: damage.__name__)
def test_a_bad_archive_is_refused_and_the_rest_is_kept(
    sandbox, served, paths, tmp_path, damage, capsys
):
    folder = tmp_path / "served"
    folder.mkdir()
    for path in served.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    write_zip(folder / "train_masks.zip", {"train_masks/a.gif": os.urandom(50_000)})
    damage(folder / "train_masks.zip")
    sandbox(folder=folder)
    with pytest.raises(CarvanaError, match="train_masks.zip: ") as raised:
        download(paths)
    assert "\n" not in str(raised.value)
    assert paths.train.is_dir()
    assert not paths.train_masks.exists()
    assert not (tmp_path / "escaped").exists()
    assert "data/train: ready" in capsys.readouterr().err


def test_an_archive_that_arrives_damaged_is_fetched_once_more(sandbox, served, paths, capsys):
    sandbox("flip on=train.zip")
    download(paths)
    assert_train_is_there(paths.root, served)
    assert "fetching it once more from its beginning" in capsys.readouterr().err


def test_an_archive_that_arrives_damaged_twice_is_told(sandbox, paths):
    sandbox("flip on=train.zip times=2")
    with pytest.raises(
        CarvanaError, match="fetched twice, and both times it is cut .* in a browser"
    ):
        download(paths)
    assert files_in(paths.root) == {}


def test_disk_too_small_is_told_beforehand(sandbox, paths, monkeypatch):
    server = sandbox()
    usage = archives.shutil.disk_usage(paths.root.parent)._replace(free=5_000_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CarvanaError, match="needs 8 MB, the disk has 5 MB free; make room"):
        download(paths)
    assert not any("/storage/" in line for line in server.log)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_disk_full_while_fetching(sandbox, served, paths):
    sandbox()
    paths.root.mkdir()
    part = paths.root / "train.zip.part"
    part.symlink_to("/dev/full")
    with pytest.raises(CarvanaError, match="train.zip: the disk is full; make room"):
        download(paths)
    assert not paths.train.exists()
    part.unlink()
    download(paths)
    assert_train_is_there(paths.root, served)


def test_two_downloads_into_one_folder(sandbox, served, paths):
    server = sandbox(f"hold on=train.zip times=0 after={HELD + 1000}")
    part = paths.root / "train.zip.part"
    with start_client(download_call(paths), server.environment()) as first:
        wait_until(lambda: size_of(part) == HELD, first)
        with pytest.raises(CarvanaError, match="another download is at work on it; wait"):
            download(paths)
        with pytest.raises(CarvanaError, match="another download is at work on it; wait"):
            download(paths, source=served)
        first.kill()
    server.faults.clear()
    download(paths)
    assert_train_is_there(paths.root, served)


# ---- from a folder


def test_from_a_folder_of_archives(served, paths, monkeypatch):
    monkeypatch.setattr(kaggle_client, "_connect", lambda: pytest.fail("asked Kaggle"))
    assert len(download(paths, "all", served)) == 5
    found = files_in(paths.root)
    assert not any(name.endswith(".zip") for name in found)
    with zipfile.ZipFile(served / "test.zip") as archive:
        assert {n: found[n] for n in archive.namelist()} == {
            n: archive.read(n) for n in archive.namelist()
        }


def test_from_a_folder_already_unpacked(served, paths, tmp_path):
    source = tmp_path / "input"
    for name in ("test.zip", "sample_submission.csv.zip"):
        with zipfile.ZipFile(served / name) as archive:
            archive.extractall(source / "test" if name == "test.zip" else source)
    download(paths, "test", source)
    with zipfile.ZipFile(served / "test.zip") as archive:
        assert (paths.test / "0.jpg").read_bytes() == archive.read("test/0.jpg")
    assert paths.sample_submission.is_file()


def test_from_a_folder_that_lacks_something(served, paths, tmp_path):
    source = tmp_path / "input"
    source.mkdir()
    (source / "train.zip").write_bytes((served / "train.zip").read_bytes())
    with pytest.raises(UsageError, match="holds neither train_masks.zip nor train_masks; give"):
        download(paths, "train", source)
    assert files_in(paths.root) == {}
    os.truncate(source / "train.zip", 1000)
    for name in ("train_masks.zip", "train_masks.csv.zip", "sample_submission.csv.zip"):
        (source / name).write_bytes((served / name).read_bytes())
    with pytest.raises(CarvanaError, match="train.zip: is cut short or damaged"):
        download(paths, "train", source)
    assert files_in(paths.root) == {}


# ---- credentials


def without_credentials(environment: dict) -> dict:
    unset = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
    return {name: value for name, value in environment.items() if name not in unset}


def test_no_credentials(sandbox, paths, monkeypatch):
    environment = without_credentials(sandbox().environment())
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    code, output = run_client(download_call(paths), environment)
    assert code == 1
    assert output.startswith("no Kaggle credentials found.")
    for needed in ("settings/api", "access_token", "/rules", "make demo", "--from FOLDER"):
        assert needed in output
    assert len(output.splitlines()) < 10
    assert files_in(paths.root) == {}


@pytest.mark.parametrize("way", ["access_token", "kaggle.json", "KAGGLE_KEY"])
def test_each_way_to_give_credentials(sandbox, served, paths, monkeypatch, way):
    server = sandbox()
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    environment = without_credentials(server.environment())
    folder = Path(environment["KAGGLE_CONFIG_DIR"])
    folder.mkdir(exist_ok=True)
    if way == "access_token":
        (folder / way).write_text(server.token + "\n")
    elif way == "kaggle.json":
        (folder / way).write_text(f'{{"username": "sandbox", "key": "{server.token}"}}')
    else:
        environment |= {"KAGGLE_USERNAME": "sandbox", "KAGGLE_KEY": server.token}
    code, output = run_client(download_call(paths, "sample"), environment | {"VERBOSE": "1"})
    assert code == 0, output
    assert server.token not in output  # not even from the client's verbose mode


def test_credentials_that_are_not_accepted(sandbox, paths, monkeypatch):
    sandbox()
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired-secret")
    with pytest.raises(KaggleError, match="KAGGLE_API_TOKEN: Kaggle does not accept") as raised:
        download(paths)
    assert "settings/api" in str(raised.value)
    assert "expired-secret" not in str(raised.value)
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "expired-secret")
    with pytest.raises(KaggleError, match="Kaggle does not accept these credentials .*(401)"):
        download(paths)


def test_a_folder_the_client_cannot_make(sandbox, paths):
    environment = sandbox().environment() | {"KAGGLE_CONFIG_DIR": "/dev/null/kaggle"}
    code, output = run_client(download_call(paths), environment)
    assert code == 1
    assert output.startswith("/dev/null/kaggle: the Kaggle client cannot make its folder")


# ---- submit


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
    assert str(result.standing) == "would stand about 584 of 735"
    assert server.submissions[0].description == "a message"
    output = capsys.readouterr().err
    assert "valid, uploading" in output
    assert "sent; waiting for the score" in output


def test_submit_fetches_the_sample_it_validates_by(sandbox, paths, tmp_path):
    sandbox(pending_seconds=0)
    result = submit(write_submission(tmp_path / "mine.csv"), "message", paths)
    assert result.private == 1.0
    assert str(result.standing) == "would stand about 1 of 735"
    assert paths.sample_submission.is_file()


def test_an_invalid_submission_is_not_sent(sandbox, ready, tmp_path):
    server = sandbox()
    with pytest.raises(CarvanaError, match="not valid, so not sent\n.*zero length, first at line"):
        submit(write_submission(tmp_path / "mine.csv", last="5 0"), "message", ready)
    with pytest.raises(UsageError, match="gone.csv: is no file"):
        submit(tmp_path / "gone.csv", "message", ready)
    assert not any("Upload" in line for line in server.log)


SUBMIT_FAULTS = {
    "400 on=CreateSubmission message='Daily limit reached'": (
        r'Kaggle refuses \(400\); Kaggle says: "Daily limit reached"; see .*/rules if you have not'
    ),
    "403 on=StartSubmissionUpload": r"accept the competition's rules in a browser at .*/rules",
    "403 on=CreateSubmission message='Phone verification needed'": "must be verified by phone",
    "failed message='Unexpected row'": "took it but could not score it: Unexpected row; see .*/sub",
    "pending": "sent, but not scored after 1 s; it is not lost: its score will be at .*/subm",
    "500 on=/upload/ times=0": "the upload failed, nothing was submitted; see https://status.kag",
    "503 on=ListSubmissions times=0": "sent, do not send it again: its score will be at .*/subm",
    "503 on=CreateSubmission times=0": r"Kaggle has trouble of its own \(503\)",
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


def test_a_submission_is_never_sent_twice_by_itself(sandbox, ready, tmp_path):
    server = sandbox(pending_seconds=0)
    answer = server.answer

    def lose_the_answer(request):
        response = answer(request)
        if request.path.endswith("CreateSubmission"):
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return response

    server.answer = lose_the_answer
    with pytest.raises(KaggleError, match="lost while submitting; see at .*/submissions whether"):
        submit(write_submission(tmp_path / "mine.csv"), "message", ready)
    assert len(server.submissions) == 1


def test_interrupted_while_waiting_for_the_score(sandbox, ready, tmp_path):
    server = sandbox("pending")
    submission = write_submission(tmp_path / "mine.csv")
    paths = f"Paths(Path({str(ready.root)!r}))"
    call = f"kaggle_client.submit(Path({str(submission)!r}), 'message', {paths})"
    with start_client(call, server.environment()) as process:
        wait_until(lambda: any("ListSubmissions" in line for line in server.log), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert "it is with Kaggle, do not send it again: its score will be at" in output
    assert len(server.submissions) == 1


def test_passing_trouble_while_waiting_for_the_score(sandbox, ready, tmp_path):
    server = sandbox("503 on=ListSubmissions times=2", "429 on=StartSubmissionUpload times=2")
    assert submit(write_submission(tmp_path / "mine.csv"), "message", ready).public == 1.0
    assert len(server.submissions) == 1


def test_a_submission_not_listed_yet_is_pending(sandbox, ready, tmp_path):
    server = sandbox(pending_seconds=0)
    looks = iter([server.submissions.copy()] * 2)
    answer = server.answer

    def hide_twice(request):
        hidden = next(looks, None) if request.path.endswith("ListSubmissions") else None
        if hidden is None:
            return answer(request)
        server.submissions, kept = hidden, server.submissions
        try:
            return answer(request)
        finally:
            server.submissions = kept

    server.answer = hide_twice
    assert submit(write_submission(tmp_path / "mine.csv"), "message", ready).public == 1.0


# ---- leaderboard


def test_leaderboard_comes_in_pages(sandbox):
    server = sandbox()
    scores = kaggle_client.leaderboard()
    assert len(scores) == 735
    assert (scores[0], scores[510]) == (0.997332, 0.988423)
    assert len([line for line in server.log if "GetLeaderboard" in line]) == 8
    assert kaggle_client.standing(0.988423) == Standing(511, 735, estimated=False)
    assert kaggle_client.standing(-1) == Standing(735, 735, estimated=False)


def test_standing_without_the_leaderboard(sandbox, ready, tmp_path):
    sandbox("404 on=GetLeaderboard times=0")
    assert kaggle_client.standing(0.999) == Standing(1, 735, estimated=True)
    assert kaggle_client.standing(0.988423) == Standing(511, 735, estimated=True)
    assert kaggle_client.standing(0.0) == Standing(735, 735, estimated=True)
    result = submit(write_submission(tmp_path / "mine.csv"), "message", ready)
    assert "1 of 735 (estimated: the leaderboard could not be fetched)" in str(result.standing)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("-3", 0.0), ("Wed, 26 Mar 2014 00:00:00 GMT", 0.0), ("soon", None), ("", None)],
)
def test_retry_after_is_a_number_or_a_date(header, seconds):
    response = requests.Response()
    response.headers["Retry-After"] = header
    assert kaggle_client._retry_after(response) == seconds


@pytest.mark.parametrize("stray", ["\r", "\n", "€"])
def test_a_token_with_a_stray_character_is_told_and_never_shown(sandbox, paths, stray):
    server = sandbox()
    token = f"SECRET{stray}"
    environment = os.environ | server.environment() | {"KAGGLE_API_TOKEN": token}
    command = [sys.executable, "-m", "carvana.cli", "download", "--data", str(paths.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SECRET" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "settings/api" in done.stderr


def test_a_source_that_holds_the_data_folder_is_refused(served):
    with pytest.raises(UsageError, match="holds the data folder"):
        download(Paths(served / "data"), source=served)
