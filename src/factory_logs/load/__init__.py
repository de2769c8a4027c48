"""Simulate devices that write as fast as a service responds, for `factory-logs loadtest`. Needs no server code."""
