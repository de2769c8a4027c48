"""`python -m factory_logs` is `factory-logs`."""

from factory_logs.cli import main

main()
