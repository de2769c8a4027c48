"""Where the device's token comes from: given, in a file that may change, or from a login that renews itself."""

import hashlib
import time
from pathlib import Path
from typing import Protocol

import httpx

from factory_logs.client.server_clock import http_date, retry_after

RENEW_AT = 0.8
"""The part of a login's idle life after which it is renewed rather than used again."""


class NoTokenError(Exception):
    """There is no token now; the message says why and holds no secret. `retry_after` is in seconds, if known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Credentials(Protocol):
    """A source of tokens."""

    def account(self) -> str:
        """Who the server takes us for, as far as can be told without asking: a user, or one token. No secret.

        Raises NoTokenError.
        """

    def token(self, http: httpx.Client) -> str:
        """The token to use now. Raises NoTokenError, or httpx.TransportError where the server must be asked."""

    def refused(self, token: str) -> bool:
        """Take note that the server refuses the token; whether there may be another one at once."""


class FixedToken:
    """A device token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def account(self) -> str:
        return _account_of(self._token)

    def token(self, http: httpx.Client) -> str:
        return self._token

    def refused(self, token: str) -> bool:
        return False


class TokenFile:
    """A file that holds the token; it is read for every request, so a token can be replaced under a running client."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def account(self) -> str:
        return _account_of(self._read())

    def token(self, http: httpx.Client) -> str:
        return self._read()

    def refused(self, token: str) -> bool:
        return False

    def _read(self) -> str:
        try:
            token = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NoTokenError(f"the token file {self._path} cannot be read: {type(error).__name__}") from None
        if not token or not token.isascii() or not token.isprintable():
            raise NoTokenError(f"the token file {self._path} holds no token")
        return token


class Login:
    """A username and password; logs in when there is no token, when it was refused and before it has idled out."""

    def __init__(self, username: str, password: str) -> None:
        self._pair = {"username": username, "password": password}
        self._token: str | None = None
        self._idle_seconds = 0.0
        self._used_at = 0.0

    def account(self) -> str:
        return f"user {self._pair['username']}"

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
        now = http_date(answer.headers.get("date"))
        try:
            if answer.status_code != 200:
                raise ValueError(answer.status_code)
            success = answer.json()["message"]["login_successful"]
            token, expiry = str(success["API_token"]), http_date(success["token_expiry"])
        except (ValueError, KeyError, TypeError):
            wait = retry_after(answer.headers.get("retry-after"), time.time() if now is None else now)
            raise NoTokenError(f"the login was answered with {answer.status_code}", wait) from None
        self._idle_seconds = expiry - (time.time() if now is None else now) if expiry is not None else 3600.0
        return token


def _account_of(token: str) -> str:
    return f"token {hashlib.sha256(token.encode()).hexdigest()[:32]}"
