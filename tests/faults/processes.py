"""Information from the kernel about other processes: their parents and their memory."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024
ENDED = "ZX"
"""The states of a process that has ended."""
LISTENING = "0A"
"""The state of a socket in /proc/net/tcp that connections come in by."""


def children(parent: int) -> list[int]:
    """Return the processes that `parent` has started and that have not ended."""
    found = {pid: _parent_and_state(pid) for pid in _all_pids()}
    return [pid for pid, (its_parent, state) in found.items() if its_parent == parent and state not in ENDED]


def command_line(pid: int) -> str:
    """Return nothing for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def name(pid: int) -> str:
    """Return nothing for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def memory(pid: int) -> int:
    """Return the private resident memory of the process in bytes; 0 if it has ended."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * PAGE_BYTES


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the process so far, which does not depend on other load."""
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Return whether the process has not ended; a zombie has."""
    return _parent_and_state(pid)[1] not in ENDED


def is_stopped(pid: int) -> bool:
    """Return whether SIGSTOP has taken effect."""
    return _parent_and_state(pid)[1] == "T"


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent_and_state(pid: int) -> tuple[int, str]:
    """Return the id of the parent and the letter of the state in /proc, which is "X" if there is no such process."""
    try:
        # The name, in parentheses, may hold anything.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return 0, "X"
    return int(parent), state


def holder(pids: Iterable[int], client_port: int) -> int:
    """Return which of these processes has the server's end of the connection from this local port."""
    inodes = set(_inodes(client_port))
    for pid in pids:
        if inodes & _open_sockets(pid):
            return pid
    raise AssertionError(f"none of {list(pids)} holds the connection from port {client_port}")


def is_connected(client_port: int, port: int) -> bool:
    """Return whether a process has the server's end of the connection between these local ports."""
    return bool(_inodes(client_port, port))


def connections(pid: int, port: int) -> int:
    """Return the number of connections to this local port whose server's end the process has."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    accepted = {columns[9] for columns in lines if columns[1].endswith(f":{port:04X}") and columns[3] != LISTENING}
    return len(accepted & _open_sockets(pid))


def _open_sockets(pid: int) -> set[str]:
    """Their inodes."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            kind, _, inode = os.readlink(descriptor).partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    return found


def _inodes(client_port: int, port: int | None = None) -> list[str]:
    """Return the inodes of the connections from a local port, to `port` if it is given: another server may have a
    connection from the same port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        columns[9]
        for columns in lines
        if columns[2].endswith(f":{client_port:04X}")
        and columns[9] != "0"
        and (port is None or columns[1].endswith(f":{port:04X}"))
    ]
