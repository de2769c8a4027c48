"""Count failed logins for all workers together: the SQL of `login_tries`.

Counting an attempt locks the key's row, so attempts on several workers at the same time are counted one after the
other. All times are from PostgreSQL's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Float, Integer, LargeBinary, bindparam, text

from factory_logs.db.engine import Database, Pool
from factory_logs.db.models import TIME

FORGOTTEN_AT_ONCE = 20
"""The number of expired rows that an attempt deletes. It is more than an attempt adds, so expired rows do not
accumulate."""

_NOW = "(now() AT TIME ZONE 'utc')"
_KEY = bindparam("key", type_=LargeBinary)
_MOST = bindparam("most", type_=Integer)
_WINDOW = bindparam("seconds", type_=Float)
# An attempt with a time in the future was stored before the clock was set back. It counts too, but not forever.
_COUNTS = f"tried BETWEEN {_NOW} - make_interval(secs => :seconds) AND {_NOW} + make_interval(secs => :seconds)"
_COUNTING = f"ARRAY(SELECT tried FROM unnest(known.tried_at) AS tried WHERE {_COUNTS})"  # noqa: S608 - our own text
_ADD = text(f"""
    INSERT INTO login_tries AS known (key, tried_at, ends_at)
    VALUES (:key, ARRAY[{_NOW}], {_NOW} + make_interval(secs => :seconds))
    ON CONFLICT (key) DO UPDATE SET tried_at = {_COUNTING} || excluded.tried_at, ends_at = excluded.ends_at
    WHERE cardinality({_COUNTING}) < :most
    RETURNING {_NOW}
""").bindparams(_KEY, _MOST, _WINDOW)  # noqa: S608
# The next attempt is allowed after the oldest of the `most` newest attempts has expired.
_WAIT = text(f"""
    SELECT least(extract(epoch FROM tried - {_NOW}), 0) + :seconds FROM login_tries, unnest(tried_at) AS tried
    WHERE key = :key AND {_COUNTS}
    ORDER BY tried DESC OFFSET :most - 1 LIMIT 1
""").bindparams(_KEY, _MOST, _WINDOW)  # noqa: S608
# Skip rows that another worker deletes or counts at the same time, so that no worker waits.
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
    """No attempt is left for this key; the next one is allowed after `seconds`."""

    key: bytes
    seconds: float


class LoginAttemptRepository:
    """Counts attempts by key in a sliding window. Each method raises DatabaseUnavailableError if PostgreSQL is
    unreachable.

    Callers must always pass keys in the same order, or two workers could deadlock.
    """

    def __init__(self, database: Database, window_seconds: float) -> None:
        self._database = database
        self._window_seconds = window_seconds

    async def add(self, limits: Sequence[tuple[bytes, int]]) -> datetime | Refusal:
        """Count one more attempt for each key, if all keys are below their limits.

        Return the time of the attempt, which identifies it for `take_back`, or the refusal.
        """
        moment = datetime.min
        async with self._database.connect(Pool.AUTHENTICATION) as connection:
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
        """Stop counting an attempt."""
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            for key in keys:
                await connection.execute(_TAKE_BACK, {"key": key, "moment": moment})

    async def clear(self, key: bytes, others: Sequence[bytes], moment: datetime) -> None:
        """Delete all attempts of `key`, and the attempt at `moment` of the other keys."""
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            await connection.execute(_CLEAR, {"key": key})
            for other in others:
                await connection.execute(_TAKE_BACK, {"key": other, "moment": moment})
