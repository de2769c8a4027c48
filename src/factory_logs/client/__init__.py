"""The device side: a client that never loses a log over a bad link (docs/devices.md)."""

from factory_logs.client.async_client import AsyncClient
from factory_logs.client.client import Client, Status
from factory_logs.client.errors import (
    ClientError,
    ClosedError,
    InvalidLogError,
    SpoolDamagedError,
    SpoolError,
    SpoolFullError,
)
from factory_logs.client.handler import FactoryLogsHandler
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import RejectedLog, Totals

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ClientSettings",
    "ClosedError",
    "FactoryLogsHandler",
    "InvalidLogError",
    "RejectedLog",
    "SpoolDamagedError",
    "SpoolError",
    "SpoolFullError",
    "Status",
    "Totals",
]
