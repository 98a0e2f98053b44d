"""Kaggle through its official client: connect, retry, explain what went wrong.

Only this folder knows the `kaggle` package. The package is imported when first needed: importing
it reads credentials and asks Kaggle about them.
"""

import contextlib
import email.utils
import errno
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import requests

from carvana.competition.facts import SLUG
from carvana.errors import CarvanaError
from carvana.files import some_home
from carvana.kaggle.archives import disk_error

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

_Out = TypeVar("_Out")

PAGE = f"https://www.kaggle.com/competitions/{SLUG}"
RULES_PAGE = f"{PAGE}/rules"
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
PHONE_PAGE = "https://www.kaggle.com/settings"
STATUS_PAGE = "https://status.kaggle.com"
AGAIN = "then run the same command again: nothing done so far is lost"

NOT_KAGGLE = (
    "the answer is a web page, not Kaggle's; a proxy, a firewall or a sign-in page stands between: "
    f"open https://www.kaggle.com in a browser on this machine, {AGAIN}"
)

_BAD_CREDENTIALS = (
    "Kaggle does not accept these credentials (expired, revoked or mistyped); make a new token at "
    f"{TOKEN_PAGE} and save it as ~/.kaggle/access_token or in KAGGLE_API_TOKEN (a proxy that "
    "removes it looks the same)"
)

_NO_WAY_THROUGH = {  # in the error of a connection: what stands between us and Kaggle
    "CERTIFICATE_VERIFY_FAILED": (
        "the TLS certificate is not trusted, as behind a proxy that opens TLS; set "
        "REQUESTS_CA_BUNDLE to the file (PEM) of your network's own certificates"
    ),
    "TLS CA certificate bundle": "REQUESTS_CA_BUNDLE names no file; correct or unset it",
    "failed: 407": (
        "the proxy asks for a name and password; give them as "
        "HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
    ),
    "Tunnel connection failed: 403": (
        "the proxy does not let you through to Kaggle (403); ask whoever runs it, or use another "
        "network"
    ),
}
_OF_RULES = ("rule", "accept", "permission", "denied", "forbidden")

ATTEMPTS = 5  # without progress, before giving up
FIRST_DELAY = 2.0  # seconds before the second attempt, doubled for each one after it
LONGEST_DELAY = 120.0  # seconds; if Kaggle asks for more, we tell the user instead


class KaggleError(CarvanaError):
    """Kaggle refused or failed."""

    def __init__(self, line: str, retryable: bool = False, delay: float | None = None):
        super().__init__(line)
        self.retryable = retryable  # whether trying again may help
        self.delay = delay  # seconds to wait before that, if Kaggle said so


def connect() -> "KaggleApi":
    """Import the client, and let it find and check the credentials, which only it sees.

    Raises:
        KaggleError: there are none, or Kaggle rejects them.
    """
    try:
        # In its verbose mode the client prints the credentials.
        with contextlib.redirect_stdout(io.StringIO()), some_home():
            from kaggle.api.kaggle_api_extended import KaggleApi
    except OSError as error:
        raise KaggleError(
            f"{error.filename}: the Kaggle client cannot make its folder ({error.strerror}); set "
            "KAGGLE_CONFIG_DIR to a folder that can be written"
        ) from error
    api = KaggleApi()

    def authenticate() -> None:
        try:
            api.authenticate()
        except (IsADirectoryError, PermissionError) as error:
            raise KaggleError(
                f"{error.filename}: the credentials cannot be read ({error.strerror}); make it a "
                "file that you may read"
            ) from error

    try:
        with some_home():
            with_retries("the credentials", authenticate)
        # A legacy key is only checked when it is used; so is the consent to the rules.
        with_retries("the competition", lambda: api.competition_list_files(SLUG, page_size=1))
        return api
    except SystemExit:  # how the client reports that it found none
        raise _no_credentials() from None
    except (TypeError, ValueError):  # what it raises for malformed credentials
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


def with_retries(
    what: str,
    work: Callable[[], _Out],
    progress: Callable[[], int] = lambda: 0,
    lost: str = "retry",
) -> _Out:
    """Do something that needs Kaggle, and retry while the failure may be temporary.

    Args:
        what: what is asked for, for the messages.
        progress: returns how far it is; an attempt that got further does not count as a failure.
        lost: "stop" to give up when the connection is lost, for what must not be done twice.

    Raises:
        KaggleError: it failed nevertheless.
    """
    failures = 0
    while True:
        before = progress()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return work()
        except json.JSONDecodeError as error:
            if not error.doc.lstrip().startswith("<"):
                raise
            raise KaggleError(f"{what}: {NOT_KAGGLE}") from error
        except (requests.RequestException, OSError) as error:
            trouble = _explain(error, what)
            response = getattr(error, "response", None)
            is_lost = response is None
            brief = "the connection was lost" if is_lost else f"Kaggle answered {_status(response)}"
            failures = 1 if progress() > before else failures + 1
            delay = FIRST_DELAY * 2 ** (failures - 1) if trouble.delay is None else trouble.delay
            hopeless = not trouble.retryable or (is_lost and lost == "stop")
            if hopeless or failures >= ATTEMPTS or delay > LONGEST_DELAY:
                raise trouble from error
        say(f"{what}: {brief}; trying again in {delay:.0f} s ({failures} of {ATTEMPTS - 1})")
        time.sleep(delay)


def pages(what: str, ask: Callable[[str], _Out]) -> Iterator[_Out]:
    """Yield the pages of a long answer; `ask` is given each one's token, "" for the first."""
    token = ""
    while True:
        page = with_retries(what, partial(ask, token))
        yield page
        if page.next_page_token in (None, "", token):
            return
        token = page.next_page_token


def _explain(error: Exception, what: str) -> KaggleError:
    """Turn an error of the client into a line that says what to do.

    The error's own text is not shown, as it can contain a signed address; what Kaggle says is.
    """
    response = getattr(error, "response", None)
    if response is not None:
        return _explain_status(response, what)
    if isinstance(error, requests.RequestException) or error.errno is None:
        return _explain_connection(error, what)
    if error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNREFUSED):
        return KaggleError(f"{what}: the connection was lost; {AGAIN}", retryable=True)
    return KaggleError(str(disk_error(Path(error.filename or what), error)))


def _explain_connection(error: Exception, what: str) -> KaggleError:
    """Say what stands between us and Kaggle, as far as a failed connection tells."""
    remedies = [remedy for text, remedy in _NO_WAY_THROUGH.items() if text in str(error)]
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        remedies.append("HTTPS_PROXY is not an address; write it as http://HOST:PORT")
    cause = "Kaggle cannot be reached; check the network (and HTTPS_PROXY, if you need one)"
    return KaggleError(f"{what}: {(*remedies, cause)[0]}, {AGAIN}", retryable=not remedies)


def _explain_status(response: requests.Response, what: str) -> KaggleError:
    """Say what a refusal means and what to do about it."""
    status = _status(response)
    delay = _retry_after(response) if status == 429 else None
    wait = "a few minutes" if delay is None else f"{delay:.0f} s"
    said = " ".join(str(_body(response).get("message", "")).split())[:300]  # on one line
    quoted = f'; Kaggle says: "{said}"' if said else ""
    lines = {
        401: f"{_BAD_CREDENTIALS} (401)",
        403: f"Kaggle refuses (403); accept the competition's rules in a browser at {RULES_PAGE} "
        f"(and verify your phone at {PHONE_PAGE}), then run the same command again{quoted}",
        404: f"Kaggle has no such competition or file (404); look at {PAGE}/data{quoted}",
        407: f"{_NO_WAY_THROUGH['failed: 407']}, {AGAIN}",
        429: f"too many requests (429); wait {wait}, {AGAIN}",
    }

    def is_about(*words: str) -> bool:
        return status == 403 and any(word in said.lower() for word in words)

    if "text/html" in response.headers.get("Content-Type", "") and status < 429:
        line = f"{NOT_KAGGLE} ({status})"
    elif is_about("phone", "verif"):
        line = (
            f"your account must be verified by phone first (403); do so at {PHONE_PAGE}, then run "
            f"the same command again{quoted}"
        )
    elif status == 403 and said and not is_about(*_OF_RULES):
        line = f'Kaggle refuses (403): "{said}"; see {PAGE}'
    elif status >= 500:
        line = f"Kaggle has a problem ({status}); see {STATUS_PAGE}, wait, {AGAIN}"
    else:
        line = lines.get(
            status,
            f"Kaggle refuses ({status}){quoted}; see {PAGE}, and {RULES_PAGE} if you have not "
            "joined the competition",
        )
    return KaggleError(f"{what}: {line}", status == 429 or status >= 500, delay)


def _status(response: requests.Response) -> int:
    # Kaggle also sends errors with status 200 and a code in the body.
    code = _body(response).get("code")
    return code if response.ok and isinstance(code, int) else response.status_code


def _body(response: requests.Response) -> dict:
    try:
        body = response.json()
    except (ValueError, RuntimeError, requests.RequestException):  # not JSON, or already streamed
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


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
