"""The real client's patience and credentials, against the mock server."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from werkzeug.wrappers import Response

from carvana.competition.facts import SLUG
from carvana.errors import CarvanaError
from carvana.kaggle.client import KaggleError, with_retries
from carvana.kaggle.download import download
from kaggle_fixtures import assert_train_is_there, download_call, files_in, run_client


@pytest.mark.parametrize(
    "fault", ["429 retry_after=0.3", "429 retry_after='Wed, 26 Mar 2014 00:00:00 GMT'", "502"]
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
    "403 on=DownloadDataFile message='The deadline has passed'": (
        'Kaggle refuses (403): "The deadline has passed"; see'
    ),
    "404 on=ListDataFiles": f"look at https://www.kaggle.com/competitions/{SLUG}/data",
    "429 times=0 on=DownloadDataFile": "too many requests (429); wait a few minutes",
    "429 times=0 on=DownloadDataFile retry_after=900": "too many requests (429); wait 900 s",
    "500 times=0 on=/storage/train.zip": "Kaggle has a problem (500); see https://status.kaggle.com",
    "503 times=0 on=ListDataFiles": "Kaggle has a problem (503); see https://status.kaggle.com",
    "418 on=ListDataFiles": "Kaggle refuses (418)",
}


@pytest.mark.parametrize("fault", STATUSES)
def test_lasting_trouble_is_one_line_with_a_remedy(sandbox, served, paths, fault):
    paths.root.mkdir()
    (paths.root / "sample_submission.csv").write_text("as before")
    part = paths.root / "train.zip.part"
    sandbox("drop on=train.zip after=2000000")
    with pytest.raises(KaggleError), pytest.MonkeyPatch.context() as once:
        once.setattr("carvana.kaggle.client.ATTEMPTS", 1)
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


def lost(kind, cause):
    return getattr(requests.exceptions, kind)(f"HTTPSConnectionPool(...): (Caused by {cause})")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lost("SSLError", "SSLError('[SSL: CERTIFICATE_VERIFY_FAILED]')"), "REQUESTS_CA_BUNDLE"),
        (OSError("Could not find a suitable TLS CA certificate bundle: /x.pem"), "names no file"),
        (lost("ProxyError", "OSError('Tunnel connection failed: 407 P')"), "NAME:PASSWORD@HOST"),
        (lost("ProxyError", "OSError('Tunnel connection failed: 403 F')"), "let you through"),
        (requests.exceptions.InvalidProxyURL("Please check proxy URL."), "http://HOST:PORT"),
        (requests.exceptions.JSONDecodeError("Expecting value", "<html>", 0), "web page, not Kag"),
    ],
)
def test_a_proxy_that_stands_in_between_is_named_and_not_asked_again(error, says):
    calls = []

    def work():
        calls.append(1)
        raise error

    with pytest.raises(KaggleError, match=says):
        with_retries("the list of files", work)
    assert len(calls) == 1


PAGE = b"<!DOCTYPE html><html><title>Sign in to the network</title></html>"


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("on", ["ListDataFiles", "/storage/train.zip"])
def test_a_web_page_in_place_of_an_answer(sandbox, paths, on, status):
    server = sandbox()
    answer, asked = server.answer, []

    def page_instead(request):
        if not request.path.endswith(on):
            return answer(request)
        asked.append(request.path)
        return Response(PAGE, status=status, mimetype="text/html")

    server.answer = page_instead
    with pytest.raises(CarvanaError, match="the answer is a web page, not Kaggle's; a proxy"):
        download(paths)
    assert len(asked) == 1
    assert not (paths.root / "train.zip").exists()


# ---- credentials

CREDENTIALS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")


@pytest.fixture
def server(sandbox, monkeypatch):
    """A mock server, to whom this process has no credentials."""
    started = sandbox()
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    return started


def no_credentials(server) -> dict[str, str]:
    return {name: text for name, text in server.environment().items() if name not in CREDENTIALS}


def test_no_credentials(server, paths):
    code, output = run_client(download_call(paths), no_credentials(server))
    assert code == 1
    assert output.startswith("no Kaggle credentials found.")
    for needed in ("settings/api", "access_token", "/rules", "make demo", "--from FOLDER"):
        assert needed in output
    assert len(output.splitlines()) < 10
    assert files_in(paths.root) == {}


@pytest.mark.parametrize("way", ["access_token", "kaggle.json", "KAGGLE_KEY"])
def test_each_way_to_give_credentials(server, paths, way):
    environment = no_credentials(server)
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


def test_credentials_that_are_not_accepted(server, paths, monkeypatch):
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


@pytest.mark.parametrize("stray", ["\n", "€"])
def test_a_token_with_a_stray_character_is_told_and_never_shown(sandbox, paths, stray):
    server = sandbox()
    token = f"SECRET{stray}"
    environment = os.environ | server.environment() | {"KAGGLE_API_TOKEN": token}
    command = [sys.executable, "-m", "carvana", "download", "--data", str(paths.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SECRET" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "settings/api" in done.stderr


def test_a_folder_the_client_cannot_make(sandbox, paths):
    environment = sandbox().environment() | {"KAGGLE_CONFIG_DIR": "/dev/null/kaggle"}
    code, output = run_client(download_call(paths), environment)
    assert code == 1
    assert output.startswith("/dev/null/kaggle: the Kaggle client cannot make its folder")
