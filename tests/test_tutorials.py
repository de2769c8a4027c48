"""The commands of the tutorials for device authors and operators run in their order and print what the pages show.

A block that is `factory-logs serve` runs in a first terminal, the others in a second one. The block of `console` is the
installation, which both pages share.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = ("a-jig-that-loses-no-log", "run-the-service")
INSTALLATION = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKOUT = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", "alembic.ini", "alembic", "src")
"""The files that a build of the wheel reads."""
BLOCK = re.compile(r"^```(sh|python|text)\n(.*?)^```$|^<!-- (stop serve) -->$", re.MULTILINE | re.DOTALL)
SERVE = """
factory-logs serve >> serve.log 2>&1 &
SERVE=$!
until curl -sf http://127.0.0.1:$FACTORY_LOGS_PORT/readyz > /dev/null; do kill -0 $SERVE; sleep 0.2; done
"""
STOP = '\nkill $SERVE; wait $SERVE || test $? = 143; SERVE=""\n'
BESIDES = ('{"event":"audit"', "Logs stay in the spool: ")
"""The beginnings of lines on stderr that the pages only describe, because their position in the output varies."""
END = "--- end of the block ---"


def steps(page: str) -> list[tuple[str, str | None]]:
    """Return the blocks of commands, each with the output that the page shows below it or None."""
    found: list[tuple[str, str | None]] = []
    for kind, text, stop in BLOCK.findall(page):
        if stop:
            found.append((STOP, None))
        elif kind == "python":
            found.append((f"cat > jig.py <<'END_OF_JIG'\n{text}END_OF_JIG\n", None))
        elif kind == "text":
            found[-1] = (found[-1][0], text)
        else:
            found.append((SERVE if text == "factory-logs serve\n" else text, None))
    return found


def matches(line: str, expected: str) -> bool:
    """Return whether a line is as the page shows it, where `...` stands for any text."""
    return re.fullmatch(re.escape(expected).replace(r"\.\.\.", ".*"), line) is not None


def installation(name: str) -> str:
    """Return the commands of a page's installation, without their prompts."""
    (block,) = INSTALLATION.findall((ROOT / "docs" / "tutorial" / f"{name}.md").read_text())
    return "".join(f"{line.removeprefix('$ ')}\n" for line in block.splitlines())


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds the package")
def test_the_installation_of_the_tutorials_gives_the_server_and_the_client(tmp_path: Path) -> None:
    commands = installation(PAGES[0])
    assert installation(PAGES[1]) == commands.replace("jig", "service")
    for name in CHECKOUT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    script = (
        f"{commands}factory-logs serve --help > help.txt\npython -c 'import factory_logs.client, factory_logs.app'\n"
    )
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("VIRTUAL_ENV", "PYTHON"))}
    variables["PIP_NO_COMPILE"] = "1"  # as most of the modules are not imported here
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", PAGES)
def test_every_command_prints_what_the_page_shows(name: str, short_tmp: Path) -> None:
    port = free_port()
    page = (ROOT / "docs" / "tutorial" / f"{name}.md").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    (short_tmp / "examples").symlink_to(ROOT / "examples")
    blocks = steps(page)
    assert len(blocks) > 8
    script = "trap 'test -z \"$SERVE\" || { kill $SERVE; wait $SERVE; }' EXIT; SERVE=''\n"
    script += "".join(f"{commands}\necho '{END}'\n" for commands, _ in blocks)
    programs = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=short_tmp, env={"PATH": programs, "FACTORY_LOGS_PORT": str(port), "COLUMNS": "200", "HOME": str(short_tmp)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    log = short_tmp / "serve.log"
    assert ran.returncode == 0, ran.stdout + (log.read_text() if log.exists() else "")
    for (commands, expected), output in zip(blocks, ran.stdout.split(f"{END}\n"), strict=False):
        if expected is None:
            continue
        shown, printed = expected.splitlines(), [line for line in output.splitlines() if not line.startswith(BESIDES)]
        assert len(printed) == len(shown), f"{commands}\nprints\n{output}"
        assert all(map(matches, printed, shown)), f"{commands}\nprints\n{output}and not\n{expected}"
