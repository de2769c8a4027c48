"""The commands for a device: send, ship, spool, tail, query, yield. They do not need the server's packages."""
