"""InfluxDB's line protocol and how its points become factory logs (SPEC 8). Nothing here knows of the web."""
