"""Remove expired logs, by command or each day by `serve`, and optionally archive them first
(docs/how-to/archive.md)."""
