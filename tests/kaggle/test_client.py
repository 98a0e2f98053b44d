"""The real client's patience and credentials, against the mock server."""

import socket
import time

import pytest
from requests import exceptions as errors
from werkzeug.wrappers import Response

from carvana.cli import main
from carvana.competition.facts import SLUG, Paths
from carvana.errors import CarvanaError
from carvana.kaggle.client import KaggleError, with_retries
from carvana.kaggle.download import download
from kaggle_fixtures import assert_train_is_there, files_in, instead, start_download


@pytest.mark.parametrize(
    "fault",
    [
        "429 on=ListDataFiles retry_after=0.3",
        "429 on=IntrospectToken retry_after='Wed, 26 Mar 2014 00:00:00 GMT'",
        "502 on=/storage/train.zip",
    ],
)
def test_passing_trouble_is_waited_out(sandbox, served, paths, capsys, fault):
    sandbox(f"{fault} times=2")
    begun = time.monotonic()
    download(paths)
    assert_train_is_there(paths.root, served)
    assert capsys.readouterr().err.count(f"Kaggle answered {fault[:3]}; trying again in") == 2
    if "0.3" in fault:
        assert time.monotonic() - begun > 0.6


STATUSES = {
    "401 on=ListDataFiles": "mistyped); make a new token at https://www.kaggle.com/settings/api",
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
    "418 on=ListDataFiles": "Kaggle refuses (418)",
}


@pytest.mark.parametrize("fault", STATUSES)
def test_lasting_trouble_is_one_line_with_a_remedy(sandbox, served, paths, fault):
    sandbox(fault)
    paths.root.mkdir()
    (paths.root / "sample_submission.csv").write_text("as before")
    (paths.root / "train.zip.part").write_bytes((served / "train.zip").read_bytes()[:2_000_000])
    before = files_in(paths.root)
    with pytest.raises(KaggleError) as raised:
        download(paths)
    assert STATUSES[fault] in str(raised.value)
    assert "\n" not in str(raised.value)
    assert files_in(paths.root) == before


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


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.SSLError("Caused by '[SSL: CERTIFICATE_VERIFY_FAILED]'"), "REQUESTS_CA_BUNDLE"),
        (OSError("Could not find a suitable TLS CA certificate bundle: /x.pem"), "names no file"),
        (errors.ProxyError("Tunnel connection failed: 407 P"), "NAME:PASSWORD@HOST"),
        (errors.ProxyError("Tunnel connection failed: 403 F"), "let you through"),
        (errors.InvalidProxyURL("Please check proxy URL."), "http://HOST:PORT"),
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


@pytest.mark.parametrize(
    ("on", "status"),
    [("ListDataFiles", 200), ("ListDataFiles", 403), ("/storage/train.zip", 200)],
)
def test_a_web_page_in_place_of_an_answer(sandbox, paths, on, status):
    asked = []

    def answer_with_a_page(request):
        asked.append(request.path)
        return Response(PAGE, status=status, mimetype="text/html")

    instead(sandbox(), on, answer_with_a_page)
    with pytest.raises(CarvanaError, match="the answer is a web page, not Kaggle's; a proxy"):
        download(paths)
    assert len(asked) == 1
    assert not (paths.root / "train.zip").exists()


# ---- credentials


@pytest.fixture
def server(sandbox, monkeypatch):
    """A mock server, to whom this process has no credentials."""
    started = sandbox()
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    return started


def test_no_credentials(server, paths):
    with pytest.raises(KaggleError, match=r"^no Kaggle credentials found\.") as raised:
        download(paths)
    for needed in ("settings/api", "access_token", "/rules", "make demo", "--from FOLDER"):
        assert needed in str(raised.value)
    assert files_in(paths.root) == {}


def test_each_way_to_give_credentials(server, paths, monkeypatch):
    """The client shows them not even in its verbose mode."""
    folder = server.home / ".kaggle"
    folder.mkdir(exist_ok=True)
    (folder / "kaggle.json").write_text(f'{{"username": "sandbox", "key": "{server.token}"}}')
    environment = {"KAGGLE_CONFIG_DIR": str(folder), "VERBOSE": "1"}  # read at the client's import
    with start_download(paths.root, environment) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert server.token not in output
    (folder / "kaggle.json").unlink()
    (folder / "access_token").write_text(server.token + "\n")
    assert download(paths, "test") == [paths.test]
    (folder / "access_token").unlink()
    monkeypatch.setenv("KAGGLE_USERNAME", "sandbox")
    monkeypatch.setenv("KAGGLE_KEY", server.token)
    assert len(download(Paths(paths.root / "again"), "sample")) == 1


def test_credentials_that_are_not_accepted(server, paths, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired-secret")
    with pytest.raises(KaggleError, match="KAGGLE_API_TOKEN: Kaggle does not accept") as raised:
        download(paths)
    assert "settings/api" in str(raised.value)
    assert "expired-secret" not in str(raised.value)


@pytest.mark.parametrize("stray", ["\n", "€"])
def test_a_token_with_a_stray_character_is_told_and_never_shown(
    server, paths, monkeypatch, capsys, stray
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", f"SECRET{stray}")
    assert main(["download", "--data", str(paths.root)]) == 1
    printed = "".join(capsys.readouterr())
    assert "settings/api" in printed
    assert "SECRET" not in printed


def test_a_folder_the_client_cannot_make(server, paths):
    with start_download(paths.root, {"KAGGLE_CONFIG_DIR": "/dev/null/kaggle"}) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "/dev/null/kaggle: the Kaggle client cannot make its folder" in output
