"""How many bytes of bodies one worker holds at once: whatever is sent, its memory stays bounded (SPEC 7)."""

from factory_logs.errors import OverloadedError


class BodyBudget:
    """Counts the bytes of bodies that are being read, over all requests of one worker."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held = 0

    def take(self, size: int) -> None:
        """Raises OverloadedError where the worker holds too much already."""
        if self.held + size > self._max_bytes:
            raise OverloadedError("The service is reading as much as it can hold right now")
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size
