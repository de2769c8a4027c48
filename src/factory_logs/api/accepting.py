"""What a caller accepts: the headers `Accept` and `Accept-Encoding`, with their weights."""

from collections.abc import Sequence


def preferred(header: str, offered: Sequence[str]) -> str | None:
    """Of what is offered, what the caller names with the highest weight; of equals, what is offered first.

    None where the caller names none of it. What cannot be read is nothing that is named.
    """
    best, chosen = (0.0, 0), None
    for part in header.lower().split(","):
        name, *parameters = (text.strip() for text in part.split(";"))
        if name in offered:
            rank = (_weight(parameters), -offered.index(name))
            if rank[0] > 0 and (chosen is None or rank > best):
                best, chosen = rank, name
    return chosen


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
