"""The sender: takes batches from the spool to the server, one after the other, so a device's logs keep their order.

`step` does one thing and says how long to wait; it knows no thread. The thread around it is background.py.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from factory_logs.client import doubt
from factory_logs.client.backoff import Backoff
from factory_logs.client.delivery import Conflict, Failed, Link, Outcome, Refused, Rejected, Stored, Unauthorised
from factory_logs.client.outbox import Batch, Outbox
from factory_logs.client.settings import ClientSettings

CLOCK_TOLERANCE_SECONDS = 600.0
QUIET_SECONDS = 120.0
"""How long after its last try the server may still be busy with a batch: only then is it asked for it."""
UNAUTHORISED_SECONDS = 15.0
"""At least so long between two tries with a refused token or password: the server counts failed logins."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pause:
    """What the sender does next: wait so many seconds.

    `idle`: there is nothing to send. `firm`: the server has asked for the wait, so nobody may cut it short.
    """

    seconds: float
    idle: bool = False
    firm: bool = False


GO_ON = Pause(0.0)


class Sender:
    """The steps of sending. `trouble` says why nothing gets through, None while it does."""

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        settings: ClientSettings,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._link = link
        self._settings = settings
        self._backoff = backoff or Backoff(settings.backoff_base_seconds, settings.backoff_cap_seconds)
        self._max_records = settings.max_batch_records
        self._max_bytes = settings.max_batch_bytes
        self._clock = clock
        self._tried_at = clock()  # perhaps by another process, just before this one began
        self._refused_again: tuple[str, str] | None = None
        """The key of a batch that was refused after an earlier try, and why it is in doubt."""
        self.trouble: str | None = None

    def step(self) -> Pause:
        """Send one batch, or find out why not. Raises SpoolError."""
        problem = self._link.set_clock()
        if problem is not None:
            return self._failed(problem)
        account = self._link.account()
        if not isinstance(account, str):
            return self._failed(account)
        now = self._link.clock.now()
        batch = self._outbox.open(self._max_records, self._max_bytes, account, now)
        if batch is None:
            return Pause(self._settings.poll_seconds, idle=True)
        why = self._reason_for_doubt(batch, account, now)
        if why is not None:
            return self._doubted(batch, why)
        outcome = self._link.deliver(batch)
        self._tried_at = self._clock()
        return self._after(batch, outcome)

    def _reason_for_doubt(self, batch: Batch, account: str, now: float) -> str | None:
        """Why one more try under its key would not tell what became of the batch; None where it would."""
        if batch.account != account:
            return "the token is another one than when it was first sent"
        if not -CLOCK_TOLERANCE_SECONDS <= now - batch.started_at < self._settings.key_life_seconds:
            return "its Idempotency-Key is too old"
        if self._refused_again is not None and self._refused_again[0] == batch.key:
            return self._refused_again[1]
        return None

    def _after(self, batch: Batch, outcome: Outcome) -> Pause:
        match outcome:
            case Stored():
                self._outbox.settle(batch)
                self._max_records = min(self._settings.max_batch_records, self._max_records * 2)
                return self._went_through()
            case Rejected(faults):
                _log.warning(
                    "The server rejects %d of %d logs; see factory-logs spool show", len(faults), len(batch.lines)
                )
                self._outbox.reject(batch, faults)
                return self._went_through()
            case Refused(message) if not batch.is_new:
                why = f"it is refused, though an earlier try may be stored: {message}"
                self._refused_again = batch.key, why
                return self._doubted(batch, why)
            case Refused(message, too_large):
                self._refused(batch, message, too_large)
                return self._went_through()
            case Conflict(message):
                return self._resolve(batch, message)
            case Unauthorised() | Failed():
                return self._failed(outcome)

    def _refused(self, batch: Batch, message: str, too_large: bool) -> None:
        """Narrow the batch down to the log that the server does not name, and set that one aside."""
        if len(batch.lines) == 1:
            _log.warning("The server rejects a log: %s; see factory-logs spool show", message)
            self._outbox.reject(batch, {0: message})
            return
        self._outbox.withdraw(batch)
        self._max_records = len(batch.lines) // 2
        if too_large:
            self._max_bytes = max(1, len(batch.body) // 2)

    def _doubted(self, batch: Batch, why: str) -> Pause:
        """The batch's key tells nothing of its earlier tries: see what became of them, once none can be under way."""
        rest = self._tried_at + QUIET_SECONDS - self._clock()
        if rest <= 0:
            return self._resolve(batch, why)
        self.trouble = f"a batch is in doubt: {why}"
        return Pause(rest, firm=True)

    def _resolve(self, batch: Batch, why: str) -> Pause:
        """What to do with a batch of which nobody remembers whether it was stored."""
        policy = self._settings.in_doubt
        stored: bool | None = None
        if policy == "ask":
            answer = doubt.is_stored(batch, self._link)
            if isinstance(answer, Unauthorised | Failed):
                return self._failed(answer)
            stored = answer
        _log.warning(
            "A batch of %d logs is in doubt (%s); policy %s, found on the server: %s",
            len(batch.lines), why, policy, stored,
        )  # fmt: skip
        if stored:
            self._outbox.settle(batch)
        elif stored is False or policy == "resend":
            self._outbox.withdraw(batch)
        else:
            reason = f"in doubt: it may be stored on the server already ({why})"
            self._outbox.reject(batch, dict.fromkeys(range(len(batch.lines)), reason))
        return self._went_through()

    def _went_through(self) -> Pause:
        if self.trouble is not None:
            _log.info("The server takes logs again")
        self.trouble = None
        self._backoff.succeeded()
        return GO_ON

    def _failed(self, outcome: Unauthorised | Failed) -> Pause:
        if self.trouble is None or (isinstance(outcome, Unauthorised) and self.trouble != outcome.message):
            _log.warning("Logs stay in the spool: %s", outcome.message)
        self.trouble = outcome.message
        at_least = outcome.retry_after
        if isinstance(outcome, Unauthorised):
            at_least = max(at_least or 0.0, UNAUTHORISED_SECONDS)
        elif at_least == 0.0:
            return GO_ON
        return Pause(self._backoff.failed(at_least), firm=at_least is not None)
