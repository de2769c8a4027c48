"""Run InfluxQL statements on the logs, each in one snapshot (docs/reference/influxql.md)."""
