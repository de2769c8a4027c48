"""`factory-logs users`."""

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from factory_logs.cli.reporting import CommandError, audit, reporting_errors, tell
from factory_logs.security.levels import Level

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings

app = typer.Typer(help="Who may call the API.", no_args_is_help=True)


@app.command("create")
def create_user(
    name: Annotated[str, typer.Argument(help="The name to log in with.")],
    permission: Annotated[Level, typer.Option(help="What the user may do.", case_sensitive=False)],
    display_name: Annotated[str | None, typer.Option(help="The name to show.", show_default="NAME")] = None,
) -> None:
    """Create a user. The password is prompted for on a terminal, else it is one line of stdin."""
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
        tell(f"Created the user {name} with permission {permission}")


def read_password() -> str:
    """Raises CommandError for an empty one, or two that differ."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password and getpass.getpass("The same again: ") != password:
            raise CommandError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandError("the password is empty")
    return password


@app.command("list")
def list_users() -> None:
    """Show all users."""
    with reporting_errors():
        from factory_logs.cli.database import with_database
        from factory_logs.db.users import UserRecord, UserRepository

        async def find(database: "Database", _: "Settings") -> list[UserRecord]:
            return list(await UserRepository(database).list())

        table = Table("Name", "Display name", "Permission", "Password", "Created (UTC)")
        for user in with_database(find):
            has_password = "no" if user.password_hash is None else "yes"
            created = f"{user.created_at:%Y-%m-%d %H:%M:%S}"
            table.add_row(_plain(user.username), _plain(user.display_name), user.permission, has_password, created)
        Console().print(table)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
