"""InfluxDB's line protocol, the mapping of points to logs, credentials, responses and dumps, independent of the web
framework (docs/reference/http-api.md#influxdbs-calls). Its query language is in `influxql`."""
