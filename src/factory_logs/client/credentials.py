"""Where the device's token comes from: given, in a file that may change, or from a login that renews itself."""

import time
from pathlib import Path
from typing import Protocol

import httpx

from factory_logs.client.server_clock import http_date

RENEW_AT = 0.8
"""The part of a login's idle life after which it is renewed rather than used again."""


class NoTokenError(Exception):
    """There is no token now; the message says why and holds no secret. `retry_after` is in seconds, if known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Credentials(Protocol):
    """A source of tokens."""

    def token(self, http: httpx.Client) -> str:
        """The token to use now. Raises NoTokenError, or httpx.TransportError where the server must be asked."""

    def refused(self, token: str) -> bool:
        """Take note that the server refuses the token; whether there may be another one at once."""


class FixedToken:
    """A device token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self, http: httpx.Client) -> str:
        return self._token

    def refused(self, token: str) -> bool:
        return False


class TokenFile:
    """A file that holds the token; it is read for every request, so a token can be replaced under a running client."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self, http: httpx.Client) -> str:
        try:
            token = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NoTokenError(f"the token file {self._path} cannot be read: {type(error).__name__}") from None
        if not token or not token.isascii() or not token.isprintable():
            raise NoTokenError(f"the token file {self._path} holds no token")
        return token

    def refused(self, token: str) -> bool:
        return False


class Login:
    """A username and password; logs in when there is no token, when it was refused and before it has idled out."""

    def __init__(self, username: str, password: str) -> None:
        self._pair = {"username": username, "password": password}
        self._token: str | None = None
        self._idle_seconds = 0.0
        self._used_at = 0.0

    def token(self, http: httpx.Client) -> str:
        if self._token is None or time.monotonic() - self._used_at > self._idle_seconds * RENEW_AT:
            self._token = None
            self._token = self._log_in(http)
        self._used_at = time.monotonic()
        return self._token

    def refused(self, token: str) -> bool:
        self._token = None
        return True

    def _log_in(self, http: httpx.Client) -> str:
        answer = http.post("v1/auth/login", json=self._pair)
        if answer.status_code == 401:
            raise NoTokenError("the server refuses the username and password")
        try:
            if answer.status_code != 200:
                raise ValueError(answer.status_code)
            success = answer.json()["message"]["login_successful"]
            token, expiry = str(success["API_token"]), http_date(success["token_expiry"])
        except (ValueError, KeyError, TypeError):
            wait = answer.headers.get("retry-after", "")
            seconds = float(wait) if wait.isdecimal() and wait.isascii() else None
            raise NoTokenError(f"the login was answered with {answer.status_code}", seconds) from None
        now = http_date(answer.headers.get("date"))
        self._idle_seconds = expiry - (time.time() if now is None else now) if expiry is not None else 3600.0
        return token
