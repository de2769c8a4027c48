"""The routes, one file per resource. Each parses its request, calls a service and returns the response."""
