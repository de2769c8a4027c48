"""The web layer: routes that parse a request, call a service and return the response. No SQL and no business rule."""
