"""Reproducible measurements, each against the peer or the limit that it is compared with (docs/benchmarks.md)."""
