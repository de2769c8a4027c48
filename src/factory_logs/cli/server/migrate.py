"""`factory-logs migrate`: migrate the tables of the database to this version."""

import asyncio

from factory_logs.cli.output import ending_on_sigterm, print_message, reporting_errors


def migrate() -> None:
    """Migrate the tables of the database to this version. An embedded database is created if necessary. `serve`
    does the same when it starts."""
    with reporting_errors(), ending_on_sigterm():
        from factory_logs.cli.database import database_url, migrated
        from factory_logs.cli.environment import load_settings
        from factory_logs.db.migrations import head

        with database_url(load_settings(), create=True) as url:
            asyncio.run(migrated(url))
            print_message(f"The tables are at revision {head()}")
