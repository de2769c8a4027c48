"""Cursors: where a walk stands, as text that a client hands back unread (SPEC 5).

A cursor is bound to its `q` and carries a checksum. It opens nothing to a forger: it holds five numbers, and whatever
they are they show no more than `q` does.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import astuple

from factory_logs.errors import BadRequestError
from factory_logs.query import LARGEST_COUNT, Query
from factory_logs.reading.walks import Position

_NUMBERS = struct.Struct(">5q")
_DIGEST_BYTES = 8
_NOT_OURS = "The cursor is not one that this service gave; begin again with an empty one: ?cursor="
LENGTH = len(base64.urlsafe_b64encode(bytes(_NUMBERS.size + 2 * _DIGEST_BYTES)).rstrip(b"="))


def write_cursor(position: Position, query: Query) -> str:
    body = _NUMBERS.pack(*astuple(position)) + _digest(repr(query).encode())
    return base64.urlsafe_b64encode(body + _digest(body)).rstrip(b"=").decode()


def read_cursor(text: str, query: Query) -> Position:
    """Raises BadRequestError for text that is no cursor, or one of another `q`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, checksum = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if len(text) != LENGTH or _digest(body) != checksum:
        raise BadRequestError(_NOT_OURS)
    if body[_NUMBERS.size :] != _digest(repr(query).encode()):
        raise BadRequestError("The cursor belongs to another q; a walk keeps its q from the first page to the last")
    numbers = _NUMBERS.unpack(body[: _NUMBERS.size])
    if not all(-1 <= number <= LARGEST_COUNT for number in numbers):
        raise BadRequestError(_NOT_OURS)
    return Position(*numbers)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
