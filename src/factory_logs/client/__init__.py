"""The client for devices, which loses no log over a bad network (docs/how-to/devices.md), and the reader for
analysing logs (docs/how-to/analysis.md)."""

from factory_logs.client.async_client import AsyncClient
from factory_logs.client.client import Client, Status
from factory_logs.client.errors import (
    ClientError,
    ClosedError,
    InvalidLogError,
    PandasMissingError,
    ServerUnavailableError,
    SpoolDamagedError,
    SpoolError,
    SpoolFullError,
)
from factory_logs.client.logging_handler import FactoryLogsHandler
from factory_logs.client.read_results import ResultRows
from factory_logs.client.reader import Logs, Reader
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import RejectedLog, SpoolTotals

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ClientSettings",
    "ClosedError",
    "FactoryLogsHandler",
    "InvalidLogError",
    "Logs",
    "PandasMissingError",
    "Reader",
    "RejectedLog",
    "ResultRows",
    "ServerUnavailableError",
    "SpoolDamagedError",
    "SpoolError",
    "SpoolFullError",
    "SpoolTotals",
    "Status",
]
