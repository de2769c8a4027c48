"""Reproducible measurements, each compared with a peer or a limit (docs/reference/benchmarks.md)."""
