"""Pydantic models of requests and responses. They import nothing of the server, because devices use them too."""
