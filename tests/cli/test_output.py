import subprocess
import sys

import pytest


@pytest.mark.slow
def test_without_the_server_extra_the_error_names_it() -> None:
    script = (
        "import sys\n"
        "for name in ('sqlalchemy', 'asyncpg', 'alembic', 'fastapi', 'uvicorn', 'pydantic_settings', 'argon2'):\n"
        "    sys.modules[name] = None\n"
        "from factory_logs.cli import main\n"
        "main()\n"
    )
    for arguments in (["users", "list"], ["serve"], ["import", "x.csv"], ["export"], ["repairs", "add"]):
        if arguments[0] == "repairs":
            arguments = [*arguments, "--product-imei", "352099001761481"]
        result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 1, result.stderr
        assert result.stderr == "error: this command needs the server: pip install 'factory-logs[server]'\n"
