"""The database: connections, ORM models and the SQL of tables. `query` and `influxql` compile their own SQL."""
