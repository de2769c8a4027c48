"""Commands that run and administer the service."""
