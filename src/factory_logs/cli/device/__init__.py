"""The commands for a device: send, ship, spool, tail, query, yield. They need no server installed."""
