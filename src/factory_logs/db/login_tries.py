"""The failed logins, as all workers count them together: the only SQL over `login_tries`.

A key's row is locked by whoever counts a try, so tries at the same moment on several workers are counted one after the
other. All times are of PostgreSQL's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Float, Integer, LargeBinary, bindparam, text

from factory_logs.db.engine import Database
from factory_logs.db.models import TIME

FORGOTTEN_AT_ONCE = 20
"""More than one try adds, so what is over goes faster than anything comes."""

_NOW = "(now() AT TIME ZONE 'utc')"
_KEY = bindparam("key", type_=LargeBinary)
_MOST = bindparam("most", type_=Integer)
_WINDOW = bindparam("seconds", type_=Float)
# A try of later than now is of before the clock was put back: it counts, but not for ever.
_COUNTS = f"tried BETWEEN {_NOW} - make_interval(secs => :seconds) AND {_NOW} + make_interval(secs => :seconds)"
_COUNTING = f"ARRAY(SELECT tried FROM unnest(known.tried_at) AS tried WHERE {_COUNTS})"  # noqa: S608 - our own text
_ADD = text(f"""
    INSERT INTO login_tries AS known (key, tried_at, ends_at)
    VALUES (:key, ARRAY[{_NOW}], {_NOW} + make_interval(secs => :seconds))
    ON CONFLICT (key) DO UPDATE SET tried_at = {_COUNTING} || excluded.tried_at, ends_at = excluded.ends_at
    WHERE cardinality({_COUNTING}) < :most
    RETURNING {_NOW}
""").bindparams(_KEY, _MOST, _WINDOW)  # noqa: S608
# One more is let in once the last of the newest `most` is over.
_WAIT = text(f"""
    SELECT least(extract(epoch FROM tried - {_NOW}), 0) + :seconds FROM login_tries, unnest(tried_at) AS tried
    WHERE key = :key AND {_COUNTS}
    ORDER BY tried DESC OFFSET :most - 1 LIMIT 1
""").bindparams(_KEY, _MOST, _WINDOW)  # noqa: S608
# Those that another worker forgets just now, or counts one more for, are left alone: nobody waits for anybody.
_FORGET = text(f"""
    DELETE FROM login_tries WHERE key = ANY (ARRAY(
        SELECT key FROM login_tries WHERE ends_at < {_NOW} ORDER BY ends_at LIMIT {FORGOTTEN_AT_ONCE}
        FOR UPDATE SKIP LOCKED
    ))
""")  # noqa: S608
_TAKE_BACK = text("UPDATE login_tries SET tried_at = array_remove(tried_at, :moment) WHERE key = :key").bindparams(
    _KEY, bindparam("moment", type_=TIME)
)
_CLEAR = text("DELETE FROM login_tries WHERE key = :key").bindparams(_KEY)


@dataclass(frozen=True, slots=True)
class Refusal:
    """This key has had its tries; one more is let in after `seconds`."""

    key: bytes
    seconds: float


class LoginTryRepository:
    """Counts tries by key in a sliding window. Every method raises DatabaseUnavailableError while PostgreSQL is away.

    Keys are given in one order always, or two workers would wait for each other.
    """

    def __init__(self, database: Database, window_seconds: float) -> None:
        self._database = database
        self._window_seconds = window_seconds

    async def add(self, limits: Sequence[tuple[bytes, int]]) -> datetime | Refusal:
        """Count one more try for each key, where each has had fewer than its limit; else for none.

        The moment by which `take_back` knows the try again.
        """
        moment = datetime.min
        async with self._database.connect() as connection:
            for key, most in limits:
                values = {"key": key, "most": most, "seconds": self._window_seconds}
                added = await connection.scalar(_ADD, values)
                if added is None:
                    return Refusal(key, float(await connection.scalar(_WAIT, values)))
                moment = added
            await connection.execute(_FORGET)
            await connection.commit()
        return moment

    async def take_back(self, keys: Sequence[bytes], moment: datetime) -> None:
        """Count a try no longer."""
        async with self._database.begin() as connection:
            for key in keys:
                await connection.execute(_TAKE_BACK, {"key": key, "moment": moment})

    async def clear(self, key: bytes, others: Sequence[bytes], moment: datetime) -> None:
        """Forget all tries of a key, and for the others this one."""
        async with self._database.begin() as connection:
            await connection.execute(_CLEAR, {"key": key})
            for other in others:
                await connection.execute(_TAKE_BACK, {"key": other, "moment": moment})
