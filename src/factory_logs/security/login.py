"""Log in: exchange username and password for a token that expires if it is not used for some time."""

from dataclasses import dataclass
from datetime import datetime

from factory_logs.audit import Audit
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRecord, UserRepository
from factory_logs.errors import TooManyTriesError, UnauthenticatedError
from factory_logs.permissions import CurrentUser, Level
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.passwords import Passwords
from factory_logs.security.throttle import LoginThrottle
from factory_logs.security.tokens import issue_sliding_token
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class LoginResult:
    """The user who logged in, the new token, and the end of the token if it is not used (UTC without zone)."""

    user_id: int
    username: str
    display_name: str
    level: Level
    token: str
    expires_at: datetime


class LoginService:
    """Checks passwords and issues tokens."""

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator,
        settings: Settings,
        *,
        throttle: LoginThrottle | None = None,
        passwords: Passwords | None = None,
    ) -> None:
        self._audit = Audit(settings.audit_file)
        self._users = UserRepository(database)
        self._database = database
        self._authenticator = authenticator
        self._idle_seconds = settings.session_idle_seconds
        self._throttle = throttle or LoginThrottle(
            database,
            settings.login_max_failures,
            settings.login_window_seconds,
            max_failures_per_address=settings.login_max_failures_per_address,
        )
        self._passwords = passwords or Passwords()

    async def login(self, username: str, password: str, address: str) -> LoginResult:
        """Return a new token for a correct username and password.

        Raises UnauthenticatedError for a wrong username or password, with one message for both; TooManyTriesError;
        OverloadedError; DatabaseUnavailableError.
        """
        try:
            admitted = await self._throttle.admit(username, address)
        except TooManyTriesError:
            self._audit.note("login throttled", user=username, address=address)
            raise
        try:
            user = await self._checked(username, password)
            await self._throttle.succeeded(admitted)
            result = await self._issue(user)
        except UnauthenticatedError:
            self._audit.note("login refused", user=username, address=address)
            raise
        except Exception:
            await self._throttle.withdraw(admitted)
            raise
        self._audit.note("login", user=username, address=address)
        return result

    async def logout(self, user: CurrentUser, authorization: str, address: str) -> None:
        """Revoke the token in this header. Raises UnauthenticatedError, DatabaseUnavailableError."""
        await self._authenticator.revoke(authorization)
        self._audit.note("logout", user=user.username, address=address)

    async def _checked(self, username: str, password: str) -> UserRecord:
        user = await self._users.get_by_name(username)
        stored = None if user is None else user.password_hash
        matches = await self._passwords.verify(password, stored)
        if user is None or user.disabled_at is not None or not matches:
            raise UnauthenticatedError("The username or the password is wrong.")
        return user

    async def _issue(self, user: UserRecord) -> LoginResult:
        issued = await issue_sliding_token(self._database, user.user_id, idle_seconds=self._idle_seconds)
        current = CurrentUser(user.user_id, user.username, Level(user.permission))
        self._authenticator.remember(issued.token, current, idle_seconds=self._idle_seconds)
        return LoginResult(
            user.user_id, user.username, user.display_name, current.level, issued.token, issued.expires_at
        )
