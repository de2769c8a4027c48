"""Factory Logs: stores and serves the product logs of factories and repair centres."""

from importlib.metadata import version

__version__ = version("factory-logs")
