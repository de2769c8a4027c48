"""The `factory-logs` command."""


def main() -> None:
    raise SystemExit("not built yet")
