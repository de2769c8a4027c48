"""The web: thin routers that parse, call and answer. No SQL and no business rule."""
