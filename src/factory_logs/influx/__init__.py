"""InfluxDB's line protocol and how its points become factory logs."""
