"""The mock server, spoken to by the official command line and by hand."""

import csv
import gzip
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from carvana.competition.facts import SLUG
from carvana.errors import UsageError
from carvana_sandbox.faults import Fault
from carvana_sandbox.server import Sandbox
from conftest import press_ctrl_c
from kaggle_fixtures import write_submission


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_official_command_line(sandbox, served, tmp_path, monkeypatch, capsys):
    from kaggle import api, cli

    def kaggle(action: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kaggle", "competitions", action, SLUG, *arguments])
        api.authenticate()
        cli.main()
        return capsys.readouterr().out

    sandbox(pending_seconds=0)
    listed = {row["name"]: row for row in csv_rows(kaggle("files", "--csv"))}
    assert int(listed["train.zip"]["size"]) == (served / "train.zip").stat().st_size
    assert "solution.csv" not in listed
    kaggle("download", "-f", "train_masks.zip", "-p", str(tmp_path))
    whole = (served / "train_masks.zip").read_bytes()
    assert (tmp_path / "train_masks.zip").read_bytes() == whole
    packed = tmp_path / "mine.csv.gz"
    packed.write_bytes(gzip.compress(write_submission(tmp_path / "mine.csv").read_bytes()))
    said = kaggle("submit", "-f", str(packed), "-m", "a message")
    assert f"Successfully submitted to {SLUG}" in said
    row = csv_rows(kaggle("submissions", "--csv"))[0]
    assert (row["description"], row["status"]) == ("a message", "SubmissionStatus.COMPLETE")
    assert (row["publicScore"], row["privateScore"]) == ("1.000000", "1.000000")
    assert "0.997332" in kaggle("leaderboard", "--show")


def test_the_users_own_proxy_and_credentials_are_untouched(served, tmp_path):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "access_token").write_text("my-own-secret")
    (folder / "kaggle.json").write_text('{"username": "me", "key": "my-own-secret"}')
    (folder / "credentials.json").write_text('{"refresh_token": "my-own-secret"}')
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    seen = []
    # Refused, the client looks for other credentials: it must not come upon the user's.
    refused = Fault("403", on="IntrospectToken", times=0)
    with socket.socket() as proxy, Sandbox(served, faults=[refused]) as server:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY")
        user = dict.fromkeys(names, address) | {
            "HOME": str(folder.parent),
            "NO_PROXY": "localhost",
            "KAGGLE_API_TOKEN": "my-own-secret",
            "KAGGLE_USERNAME": "me",
            "KAGGLE_KEY": "my-own-secret",
        }
        answer = server.answer

        def note_and_answer(request):
            seen.append(f"{request.headers} {request.get_data()}")
            return answer(request)

        server.answer = note_and_answer
        command = [sys.executable, "-m", "kaggle", "competitions", "files", SLUG]
        environment = os.environ | user | server.environment()
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        with pytest.raises(BlockingIOError):
            proxy.accept()
        left = server.home
    assert seen
    assert "my-own-secret" not in "".join(seen)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before
    assert not left.exists()


def test_nothing_leaves_the_machine_and_the_truth_is_not_handed_out(served):
    with Sandbox(served) as server, requests.Session() as session:
        session.trust_env = False
        session.proxies = dict.fromkeys(("http", "https"), server.environment()["HTTPS_PROXY"])
        assert session.get("http://kaggle.com/").status_code == 404
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("https://kaggle.com/")
        for path in ("storage/solution.csv", "storage/..%2Fsolution.csv", "storage/.", ""):
            assert session.get(f"http://localhost/{path}").status_code == 404
        method = "api/v1/competitions.CompetitionApiService/DownloadDataFile"
        message = {"competitionName": SLUG, "fileName": "solution.csv"}
        session.headers["Authorization"] = f"Bearer {server.token}"
        assert session.post(f"http://localhost/{method}", json=message).status_code == 404


def test_wrong_ports_folders_and_faults_are_named(served, tmp_path):
    with Sandbox(served) as first, pytest.raises(UsageError, match="is taken by another program"):
        Sandbox(served, first.port).__enter__()
    with pytest.raises(UsageError, match="port 70000 cannot be opened"):
        Sandbox(served, 70000).__enter__()
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UsageError, match="has no files to serve"):
            Sandbox(folder)
    for wrong in ("", "nonsense", "drop after=x", "drop kind=hold", "503 until=noon"):
        with pytest.raises(UsageError, match="^fault "):
            Fault.parse(wrong)


def test_serve_says_how_to_come_and_ends_by_interrupt(served):
    with subprocess.Popen(
        [sys.executable, "-m", "carvana", "sandbox", "serve", str(served)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert f"as {SLUG} on 127.0.0.1:" in process.stdout.readline()
        line = process.stdout.readline().strip()
        command = line.replace(" kaggle ", f" {sys.executable} -m kaggle ")
        listed = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert "train.zip" in listed.stdout
        home = Path(line.split("HOME=")[1].split()[0])
        _, logged = press_ctrl_c(process)
    assert process.returncode == 0
    assert "ListDataFiles 200" in logged
    assert "Traceback" not in logged
    assert not home.exists()
