import asyncio
import signal
import subprocess
import sys

import pytest

from factory_logs.cli.output import ending_on_sigterm


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


def test_sigterm_cancels_only_the_main_task_of_asyncio() -> None:
    ended: list[str] = []

    async def main() -> None:
        commit = asyncio.create_task(asyncio.sleep(0.01, "committed"))
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ended.append(await commit)
            raise

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ending_on_sigterm():
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["committed"]
