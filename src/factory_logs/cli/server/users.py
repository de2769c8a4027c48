"""`factory-logs users`: create, list and change the users of the API."""

import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from factory_logs.cli.commands import Commands
from factory_logs.cli.output import CommandError, audit, print_message, print_table, reporting_errors, utc
from factory_logs.permissions import Level

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.db.users import UserRecord, UserRepository
    from factory_logs.settings import Settings

app = Commands(help="Create, list and change the users of the API.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user's name.")]
LEVELS = f"The permission level of the user: {', '.join(Level)}."
Permission = Annotated[Level, typer.Option(help=LEVELS, metavar="LEVEL", case_sensitive=False)]


@app.command("create")
def create_user(
    name: Annotated[str, typer.Argument(help="The name with which the user logs in.")],
    permission: Permission,
    display_name: Annotated[str | None, typer.Option(help="The display name.", show_default="NAME")] = None,
) -> None:
    """Create a user. On a terminal, the command prompts for the password; otherwise it reads one line of stdin."""
    with reporting_errors():
        from factory_logs.cli.database import with_database
        from factory_logs.db.users import UserRepository
        from factory_logs.security.passwords import Passwords

        password = read_password()

        async def create(database: "Database", settings: "Settings") -> None:
            password_hash = await Passwords().hash(password)
            await UserRepository(database).create(name, display_name or name, password_hash, permission)
            audit(settings, "user created", user=name, permission=permission)

        with_database(create)
        print_message(f"Created the user {name} with permission {permission}")


@app.command("passwd")
def change_password(name: Name) -> None:
    """Change the password of a user, which is read like in `users create`. The user's tokens stay valid."""
    with reporting_errors():
        from factory_logs.security.passwords import Passwords

        password = read_password()

        async def change(users: "UserRepository", user: "UserRecord") -> None:
            await users.set_password(user.user_id, await Passwords().hash(password))

        _change_user(name, change, "password changed")
        print_message(
            f"Changed the password of {name}; to end the user's tokens too: factory-logs tokens revoke --user {name}"
        )


@app.command("set-permission")
def set_permission(
    name: Name,
    permission: Annotated[Level, typer.Argument(help=LEVELS, metavar="LEVEL", case_sensitive=False)],
) -> None:
    """Change the permission level of a user. Within 5 seconds it applies on every worker, also to the user's tokens."""
    with reporting_errors():

        async def change(users: "UserRepository", user: "UserRecord") -> None:
            await users.set_permission(user.user_id, permission)

        _change_user(name, change, "permission changed", permission=permission)
        print_message(f"{name} now has the permission {permission}")


@app.command("disable")
def disable_user(name: Name) -> None:
    """Refuse logins of a user and end all of the user's tokens. Every worker does so within 5 seconds."""
    with reporting_errors():
        from factory_logs.cli.database import user_named, with_database
        from factory_logs.db.tokens import TokenRepository
        from factory_logs.db.users import UserRepository

        async def disable(database: "Database", settings: "Settings") -> int:
            user = await user_named(database, name)
            await UserRepository(database).disable(user.user_id)
            ended = await TokenRepository(database).revoke_all(user.user_id)
            audit(settings, "user disabled", user=name, tokens=ended)
            return ended

        ended = with_database(disable)
        print_message(f"Disabled the user {name} and ended {ended} {'token' if ended == 1 else 'tokens'}")


@app.command("enable")
def enable_user(name: Name) -> None:
    """Accept logins of a disabled user again. Tokens that have ended stay invalid."""
    with reporting_errors():

        async def change(users: "UserRepository", user: "UserRecord") -> None:
            await users.enable(user.user_id)

        _change_user(name, change, "user enabled")
        print_message(f"Enabled the user {name}")


@app.command("delete")
def delete_user(name: Name) -> None:
    """Delete a user and all of the user's tokens. Records keep the user's name in `created_by`."""
    with reporting_errors():

        async def change(users: "UserRepository", user: "UserRecord") -> None:
            await users.delete(user.user_id)

        _change_user(name, change, "user deleted")
        print_message(f"Deleted the user {name}")


@app.command("list")
def list_users(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array instead of a table.")] = False,
) -> None:
    """Show all users."""
    with reporting_errors():
        from factory_logs.cli.database import with_database
        from factory_logs.db.users import UserRecord, UserRepository

        async def find(database: "Database", _: "Settings") -> list[UserRecord]:
            return list(await UserRepository(database).list())

        users = with_database(find)
        if as_json:
            typer.echo(json.dumps([_as_json(user) for user in users], indent=2, ensure_ascii=False))
            return
        table = Table("Name", "Display name", "Permission", "Password", "Created (UTC)", "Disabled (UTC)")
        for user in users:
            has_password = "no" if user.password_hash is None else "yes"
            names = escape(user.username), escape(user.display_name)
            table.add_row(*names, user.permission, has_password, utc(user.created_at), utc(user.disabled_at))
        print_table(table)


def read_password() -> str:
    """Read a new password. Raises CommandError if it is empty or short, or if the two entries differ."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password and getpass.getpass("Repeat the password: ") != password:
            raise CommandError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandError("the password is empty")
    from factory_logs.security.passwords import check_password

    check_password(password)
    return password


def _change_user(
    name: str, change: "Callable[[UserRepository, UserRecord], Awaitable[None]]", action: str, **details: object
) -> None:
    """Change one user and write an audit line. Raises CommandError if the user does not exist."""
    from factory_logs.cli.database import user_named, with_database
    from factory_logs.db.users import UserRepository

    async def work(database: "Database", settings: "Settings") -> None:
        await change(UserRepository(database), await user_named(database, name))
        audit(settings, action, user=name, **details)

    with_database(work)


def _as_json(user: "UserRecord") -> dict[str, object]:
    return {
        "username": user.username,
        "display_name": user.display_name,
        "permission": user.permission,
        "has_password": user.password_hash is not None,
        "created_at": utc(user.created_at),
        "disabled_at": utc(user.disabled_at) or None,
    }
