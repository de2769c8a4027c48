"""`factory-logs tokens`: issue, list and revoke tokens."""

import getpass
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from factory_logs.cli.commands import Commands
from factory_logs.cli.output import CommandError, audit, print_message, print_table, reporting_errors, utc
from factory_logs.durations import parse_duration
from factory_logs.permissions import Level
from factory_logs.schemas.auth import LOGIN_HOURS

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.db.tokens import TokenRecord
    from factory_logs.settings import Settings

app = Commands(help="Issue, list and revoke tokens.", no_args_is_help=True)

NEVER = "never"
LONGEST_LABEL = 255


@app.command("issue")
def issue_token(
    name: Annotated[str, typer.Argument(help="The name of the token's user.")],
    expires_in: Annotated[
        str | None,
        typer.Option(
            help="How long the token is valid from now, such as 30s, 15m, 12h, 90d, 2w, or never.",
            show_default=f"{LOGIN_HOURS} hours after its last use",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="A text that `tokens list` shows, such as the name of the jig.")
    ] = None,
    only_write: Annotated[
        bool, typer.Option("--only-write", help="Issue a token that may only store logs. Use it for jigs.")
    ] = False,
) -> None:
    """Issue a token and print only the token on stdout. It cannot be shown again."""
    with reporting_errors():
        from factory_logs.cli.database import user_named, with_database
        from factory_logs.security.tokens import issue_sliding_token, issue_token, short_hash

        expires_at = None if expires_in in (None, NEVER) else datetime.now(UTC) + parse_duration(expires_in or "")
        if label is not None and not (label.isprintable() and 0 < len(label) <= LONGEST_LABEL):
            raise CommandError(f"--label must be 1 to {LONGEST_LABEL} printable characters")

        async def issue(database: "Database", settings: "Settings") -> str:
            user = await user_named(database, name)
            if user.disabled_at is not None:
                raise CommandError(f"the user {name!r} is disabled; factory-logs users enable changes that")
            if only_write and not Level(user.permission).includes(Level.SYSTEM):
                raise CommandError(
                    f"to store logs needs the permission {Level.SYSTEM}, and {name!r} has {user.permission}; "
                    "factory-logs users set-permission changes that"
                )
            if expires_in is None:
                sliding = await issue_sliding_token(
                    database,
                    user.user_id,
                    idle_seconds=settings.session_idle_seconds,
                    label=label,
                    only_write=only_write,
                )
                token = sliding.token
            else:
                end = None if expires_at is None else expires_at.replace(tzinfo=None)
                token = await issue_token(database, user.user_id, expires_at=end, label=label, only_write=only_write)
            audit(
                settings, "token issued", user=name, token=short_hash(token), expires_in=expires_in or "sliding",
                label=label, only_write=only_write,
            )  # fmt: skip
            return token

        typer.echo(with_database(issue))


@app.command("list")
def list_tokens(
    user: Annotated[str | None, typer.Option(help="Show the tokens of this user only.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also show expired and revoked tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array instead of a table.")] = False,
) -> None:
    """Show the tokens: user, label, last use and end. The last use is stored once a minute."""
    with reporting_errors():
        from factory_logs.cli.database import user_named, with_database
        from factory_logs.db.tokens import TokenRecord, TokenRepository

        async def find(database: "Database", _: "Settings") -> list[TokenRecord]:
            user_id = None if user is None else (await user_named(database, user)).user_id
            found = await TokenRepository(database).list(user_id)
            return [token for token in found if everything or not token.has_ended]

        tokens = with_database(find)
        if as_json:
            typer.echo(json.dumps([_as_json(token) for token in tokens], indent=2, ensure_ascii=False))
            return
        table = Table("Id", "User", "Label", "May", "Created (UTC)", "Last use (UTC)", "End (UTC)")
        for token in tokens:
            table.add_row(
                _token_id(token), escape(token.username), escape(token.label or ""),
                "store logs" if token.only_write else "all that the user may",
                utc(token.created_at), utc(token.last_used_at), _end(token),
            )  # fmt: skip
        print_table(table)


@app.command("revoke")
def revoke_token(
    token: Annotated[
        str | None,
        typer.Argument(help="Use - to read the token from stdin, because other users can see an argument in `ps`."),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="Revoke the token in this file.")] = None,
    token_id: Annotated[
        str | None, typer.Option("--id", help="Revoke the token with this id from `tokens list`.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Revoke all tokens of this user.")] = None,
) -> None:
    """Revoke one token, or all tokens of a user. Every worker refuses them within 5 seconds."""
    with reporting_errors():
        from factory_logs.cli.database import user_named, with_database
        from factory_logs.db.tokens import TokenRepository
        from factory_logs.security.tokens import hash_token, short_hash

        if sum(given is not None for given in (token, token_file, token_id, user)) != 1:
            raise CommandError("give one of - (the token on stdin), --token-file FILE, --id ID or --user NAME")
        text = None if token is None and token_file is None else _read_token(token, token_file)

        async def revoke(database: "Database", settings: "Settings") -> int:
            tokens = TokenRepository(database)
            if user is not None:
                revoked = await tokens.revoke_all((await user_named(database, user)).user_id)
                audit(settings, "tokens revoked", user=user, tokens=revoked)
                return revoked
            if text is None:
                found = [each for each in await tokens.list() if _token_id(each) == token_id]
                revoked = sum([await tokens.revoke(each.token_hash) for each in found])
                audit(settings, "tokens revoked", token=token_id, tokens=revoked)
                return revoked
            revoked = await tokens.revoke(hash_token(text))
            audit(settings, "tokens revoked", token=short_hash(text), tokens=revoked)
            return revoked

        revoked = with_database(revoke)
        if user is None and not revoked:
            raise CommandError("the token does not exist or is already revoked")
        print_message(f"Revoked {revoked} {'token' if revoked == 1 else 'tokens'}")


def _read_token(token: str | None, file: Path | None) -> str:
    """Return the token from the option that was given. Raises CommandError if there is none."""
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
    elif token == "-":  # noqa: S105 - not a password
        text = getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()
    else:
        text = token or ""
    if not text.strip():
        raise CommandError("the token is empty")
    return text.strip()


def _token_id(token: "TokenRecord") -> str:
    """Return the id of a token: the beginning of its hash, as in audit lines."""
    from factory_logs.security.tokens import short_name

    return short_name(token.token_hash)


def _end(token: "TokenRecord") -> str:
    if token.revoked_at is not None:
        return f"revoked {utc(token.revoked_at)}"
    if token.expires_at is None:
        return NEVER
    sliding = "" if token.idle_seconds is None else f", or {token.idle_seconds} s after its last use"
    return f"{'ended ' if token.has_ended else ''}{utc(token.expires_at)}{'' if token.has_ended else sliding}"


def _as_json(token: "TokenRecord") -> dict[str, object]:
    return {
        "id": _token_id(token),
        "username": token.username,
        "label": token.label,
        "only_write": token.only_write,
        "created_at": utc(token.created_at),
        "last_used_at": utc(token.last_used_at) or None,
        "idle_seconds": token.idle_seconds,
        "expires_at": utc(token.expires_at) or None,
        "revoked_at": utc(token.revoked_at) or None,
        "has_ended": token.has_ended,
    }
