"""The sources of the device's token: a fixed token, a file that may change, or a login that is renewed
automatically."""

import hashlib
import os
import time
from pathlib import Path
from typing import Protocol

import httpx

from factory_logs.client.api_response import read_bounded
from factory_logs.client.retry import http_date
from factory_logs.device_environment import PASSWORD, TOKEN, TOKEN_FILE, USERNAME

RENEW_AT = 0.8
"""A login expires after some time without use. It is renewed after this part of that time."""
MAX_LOGIN_BYTES = 64 * 1024
"""The maximum size of the response to a login."""


class NoTokenError(Exception):
    """There is currently no token. The message contains the reason, but no secret.

    `retry_after` is in seconds, or None if it is unknown.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BadCredentialsError(NoTokenError):
    """The credentials are wrong. A retry does not help; a person must replace them."""


class TokenSource(Protocol):
    """A source of tokens."""

    def account(self) -> str:
        """Return an identifier of the user: the username, or a hash of the token. Raises NoTokenError."""

    def token(self, http: httpx.Client) -> str:
        """Return the current token. Raises NoTokenError, or httpx.HTTPError if the login gets no response."""

    def refused(self, token: str) -> bool:
        """Handle a token that the server has refused. Return whether another token is available at once."""


def token_source(
    token: str | None, token_file: str | os.PathLike[str] | None, username: str | None, password: str | None
) -> TokenSource:
    """Return the source for the given credentials. Raises ValueError unless exactly one kind is given."""
    ways = [token is not None, token_file is not None, username is not None or password is not None]
    if ways.count(True) != 1:
        raise ValueError("give one of: token, token_file, or username and password")
    if token is not None:
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError("the token must be printable ASCII")
        return FixedToken(token)
    if token_file is not None:
        return TokenFile(Path(token_file))
    if username is None or password is None:
        raise ValueError("a login needs both username and password")
    return Login(username, password)


def environment_source() -> TokenSource:
    """Return the source that the environment variables of the device commands define. Raises ValueError."""
    names = (TOKEN, TOKEN_FILE, USERNAME, PASSWORD)
    try:
        return token_source(*(os.environ.get(name) or None for name in names))
    except ValueError as error:
        raise ValueError(f"{error}; or set one of {', '.join(names[:2])}, {names[2]} and {names[3]}") from None


class FixedToken:
    """Provides a token that does not change."""

    def __init__(self, token: str) -> None:
        self._token = token

    def account(self) -> str:
        return _account_name(self._token)

    def token(self, http: httpx.Client) -> str:
        return self._token

    def refused(self, token: str) -> bool:
        return False


class TokenFile:
    """Provides the token in a file. The file is read for every request, so the token can be replaced while the client
    runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def account(self) -> str:
        return _account_name(self.read())

    def token(self, http: httpx.Client) -> str:
        return self.read()

    def refused(self, token: str) -> bool:
        return False

    def read(self) -> str:
        """Return the token that the file currently contains. Raises NoTokenError."""
        try:
            token = self._path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadCredentialsError(f"the token file {self._path} cannot be read: {type(error).__name__}") from None
        if not token or not token.isascii() or not token.isprintable():
            raise BadCredentialsError(f"the token file {self._path} contains no token")
        return token


class Login:
    """Provides tokens by logging in with a username and password: if there is no token, if the token is refused, and
    before the token expires without use."""

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
        with http.stream("POST", "v1/auth/login", json=self._pair) as stream:
            response = read_bounded(stream, MAX_LOGIN_BYTES)
        if response.status == 401 and response.is_error_of_api:
            raise BadCredentialsError("the server refuses the username and password")
        try:
            if response.status != 200:
                raise ValueError(response.status)
            success = response.content["message"]["login_successful"]
            token, expiry = str(success["API_token"]), http_date(success["token_expiry"])
        except (ValueError, KeyError, TypeError):
            raise NoTokenError(f"no token by login: {response.trouble}", response.retry_after) from None
        self._idle_seconds = expiry - response.sent_at if expiry is not None else 3600.0
        return token


def _account_name(token: str) -> str:
    return f"token {hashlib.sha256(token.encode()).hexdigest()[:32]}"
