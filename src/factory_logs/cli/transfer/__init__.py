"""Commands that import and export records."""
