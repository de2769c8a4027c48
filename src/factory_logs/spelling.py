"""Find the known name that a misspelt one was probably meant to be. It serves messages only, and changes no query."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 100
"""Longer names get no suggestion, because comparing two names takes time proportional to the product of their
lengths."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word with the most similar spelling, or one that contains `word` (`imei` in `product_imei`)."""
    if len(word) > LONGEST_NAME or not word:
        return None
    names = {name.lower(): name for name in reversed(list(known))}
    wanted = word.lower()
    near = get_close_matches(wanted, names, n=1)
    if near:
        return names[near[0]]
    parts = (name for name in reversed(names) if name.endswith(f"_{wanted}") or name.startswith(f"{wanted}_"))
    part = next(parts, None)
    return None if part is None else names[part]
