"""Texts that a spreadsheet would run as formulas, and how CSV escapes them."""

# Spreadsheets also run formulas that follow a line end or a tab, and formulas that are written with full-width
# characters.
FORMULA_STARTS = "=+@\t\r\n\uff1d\uff0b\uff0d\uff20-"
"""The characters at the beginning of a text that a spreadsheet would run as a formula."""


def escaped_formula(text: str) -> str:
    """Return the text, with an apostrophe before it if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(tuple(FORMULA_STARTS)) else text
