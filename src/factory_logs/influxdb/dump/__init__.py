"""Read the files that InfluxDB exports, and convert them to logs."""
