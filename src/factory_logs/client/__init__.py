"""The device side: a client that never loses a log over a bad link."""
