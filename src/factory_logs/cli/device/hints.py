"""Say on stderr why a reading command finds nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from factory_logs.cli.device.options import ServerOptions
from factory_logs.cli.output import print_message
from factory_logs.errors import FactoryLogsError


def explain_nothing(server: ServerOptions, q: Mapping[str, Any], names: Iterable[str] = ()) -> None:
    """Print a line for each name that no log has. It asks for the catalog once; without it there are no hints."""
    from factory_logs.client.hints import hints

    try:
        with server.reader(wait_seconds=0) as reader:
            catalog = reader.catalog().body
    except FactoryLogsError:  # such as a catalog that is not complete yet
        return
    for hint in hints(catalog, q, names):
        print_message(f"hint: {hint}")
