"""The results of the rounds, as a table."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from tests.faults.processes import MIB
from tests.faults.verdict import Verdict

HEAD = (
    "| fault | rounds | acknowledged | not acknowledged | stored | lost | doubled | torn"
    " | s to ready, median | most | MiB, most |"
)


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its fault, the verdict on its logs, the seconds until a write was acknowledged, and the memory of a
    worker."""

    fault: str
    verdict: Verdict
    seconds: float
    memory: int


def table(rounds: list[Round]) -> str:
    """Return a Markdown table with a row for each fault and one for all."""
    by_fault: dict[str, list[Round]] = defaultdict(list)
    for one in rounds:
        by_fault[one.fault].append(one)
    lines = [_line(fault.replace("_", " "), of_it) for fault, of_it in sorted(by_fault.items())]
    rule = "|---|" + "--:|" * (HEAD.count("|") - 2)
    return "\n".join([HEAD, rule, *lines, _line("**all**", rounds)])


def _line(name: str, rounds: list[Round]) -> str:
    seconds = [one.seconds for one in rounds]
    sums = (
        sum(getattr(one.verdict, column) for one in rounds)
        for column in ("acknowledged", "unacknowledged", "stored", "lost", "doubled", "torn")
    )
    most = max(one.memory for one in rounds) // MIB
    cells = (name, len(rounds), *sums, f"{median(seconds):.1f}", f"{max(seconds):.1f}", most)
    return f"| {' | '.join(map(str, cells))} |"
