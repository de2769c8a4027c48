"""Answering questions about logs at the cost of the answer (SPEC 4, 5): counts, pages, cursors, streams, stats."""
