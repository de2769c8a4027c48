"""Simulated devices that write to a service as fast as it answers, for `factory-logs loadtest`. It needs no server."""
