"""The database: engine and pools, ORM models, repositories. The only SQL of the service."""
