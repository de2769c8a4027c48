"""Texts that a spreadsheet would run as formulas, and how CSV escapes them."""

# Spreadsheets also run formulas after a line end or a tab, and those written with full-width characters.
FORMULA_STARTS = "=+@\t\r\n\uff1d\uff0b\uff0d\uff20-"
"""A spreadsheet runs a text that begins with one of these."""


def escaped_formula(text: str) -> str:
    """Return the text, with an apostrophe before it if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(tuple(FORMULA_STARTS)) else text
