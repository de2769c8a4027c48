"""The environment of a device: the variables that name its server, token and spool (docs/how-to/devices.md)."""

from pathlib import Path

URL = "FACTORY_LOGS_URL"
TOKEN = "FACTORY_LOGS_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE = "FACTORY_LOGS_TOKEN_FILE"  # noqa: S105
USERNAME = "FACTORY_LOGS_USERNAME"
PASSWORD = "FACTORY_LOGS_PASSWORD"  # noqa: S105
CA_FILE = "FACTORY_LOGS_CA_FILE"
SPOOL = "FACTORY_LOGS_SPOOL"

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_SPOOL = Path("~/.factory-logs/spool")
