"""`factory-logs tokens`."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from factory_logs.cli.durations import parse_duration
from factory_logs.cli.reporting import CommandError, audit, reporting_errors, tell

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings

app = typer.Typer(help="Tokens for devices and people.", no_args_is_help=True)

NEVER = "never"


@app.command("issue")
def issue_token(
    name: Annotated[str, typer.Argument(help="The user the token is for.")],
    expires_in: Annotated[
        str | None,
        typer.Option(
            help="The token's life from now, such as 30s, 15m, 12h, 90d, 2w, or never.",
            show_default="3 hours after its last use",
        ),
    ] = None,
) -> None:
    """Print a new token, and nothing else, on stdout. It cannot be shown again."""
    with reporting_errors():
        from factory_logs.cli.database import user_named, with_database
        from factory_logs.security import issuing
        from factory_logs.security.tokens import short_hash

        expires_at = None if expires_in in (None, NEVER) else datetime.now(UTC) + parse_duration(expires_in or "")

        async def issue(database: "Database", settings: "Settings") -> str:
            user = await user_named(database, name)
            if expires_in is None:
                idle_seconds = settings.session_idle_seconds
                token = (await issuing.issue_sliding_token(database, user.user_id, idle_seconds=idle_seconds)).token
            else:
                end = None if expires_at is None else expires_at.replace(tzinfo=None)
                token = await issuing.issue_token(database, user.user_id, expires_at=end)
            audit(settings, "token issued", user=name, token=short_hash(token), expires_in=expires_in or "sliding")
            return token

        typer.echo(with_database(issue))


@app.command("revoke")
def revoke_token(
    token: Annotated[
        str | None, typer.Argument(help="The token; - reads it from stdin, so that the shell keeps no copy.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Revoke all tokens of this user.")] = None,
) -> None:
    """End one token, or all of a user. Every worker refuses them within 5 seconds."""
    with reporting_errors():
        from factory_logs.cli.database import user_named, with_database
        from factory_logs.db.tokens import TokenRepository
        from factory_logs.security.tokens import hash_token, short_hash

        if (token is None) == (user is None):
            raise CommandError("give either a token (or -) or --user NAME")
        given = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 - not a password

        async def revoke(database: "Database", settings: "Settings") -> int:
            tokens = TokenRepository(database)
            if user is not None:
                revoked = await tokens.revoke_all((await user_named(database, user)).user_id)
                audit(settings, "tokens revoked", user=user, tokens=revoked)
            else:
                revoked = await tokens.revoke(hash_token(given or ""))
                audit(settings, "tokens revoked", token=short_hash(given or ""), tokens=revoked)
            return revoked

        revoked = with_database(revoke)
        if user is None and not revoked:
            raise CommandError("there is no such token, or it is revoked already")
        tell(f"Revoked {revoked} {'token' if revoked == 1 else 'tokens'}")
