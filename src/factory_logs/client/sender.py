"""Send batches from the spool to the server, one after the other, so that a device's logs stay in order.

`step` sends one batch and returns the time to wait. sender_thread.py contains the thread that calls it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from factory_logs.client.delivery import (
    BatchRefused,
    BatchStored,
    DeliveryOutcome,
    KeyConflict,
    LogsRejected,
    ServerLink,
    TryLater,
    Unauthorised,
    is_stored,
)
from factory_logs.client.outbox import Doubt, Outbox, OutboxBatch
from factory_logs.client.retry import Backoff
from factory_logs.client.settings import ClientSettings

CLOCK_TOLERANCE_SECONDS = 600.0
QUIET_SECONDS = 120.0
"""For this time after the last attempt, the server may still be storing the batch, so it is not looked up earlier."""
UNAUTHORISED_SECONDS = 15.0
"""The shortest wait between two attempts with a refused token or password, because the server counts failed logins."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pause:
    """The wait of the sender before its next step.

    `idle` means that there is nothing to send. `firm` means that the server asked for the wait, so `flush()` must not
    shorten it.
    """

    seconds: float
    idle: bool = False
    firm: bool = False


GO_ON = Pause(0.0)


class Sender:
    """Sends the spool's batches. `trouble` is the reason why no log is delivered, or None."""

    def __init__(
        self,
        outbox: Outbox,
        link: ServerLink,
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
        self._tried_at = clock()  # another process may have sent just before this process began
        self._recalled: str | None = None
        """The key of the batch whose note of an earlier process was read, or was written by this process."""
        self._missing: tuple[str, float] | None = None
        """The key of a batch in doubt that the server did not contain, and the time when the server was first asked for
        it."""
        self.trouble: str | None = None

    def step(self) -> Pause:
        """Send one batch if there is one, and return the time to wait. Raises SpoolError."""
        self._outbox.keep_reserve(is_idle=False)
        problem = self._link.set_clock()
        if problem is not None:
            return self._failed(problem)
        account = self._link.account()
        if not isinstance(account, str):
            return self._failed(account)
        now = self._link.clock.now()
        batch = self._outbox.open(self._max_records, self._max_bytes, account, now)
        if batch is None:
            self._outbox.keep_reserve(is_idle=True)
            return Pause(self._settings.poll_seconds, idle=True)
        self._recall(batch, now)
        why = self._reason_for_doubt(batch, account, now)
        if why is not None:
            return self._doubted(batch, why)
        doubt = batch.doubt
        if doubt is not None and doubt.since is not None:
            if doubt.refusal is not None and self._quiet_rest() > 0:
                return self._wait(batch, doubt.refusal)
            self._note(batch, Doubt(None, missing_since=doubt.missing_since))
        outcome = self._link.deliver(batch)
        if not isinstance(outcome, LogsRejected | BatchRefused | Unauthorised):  # a refused request is finished
            self._tried_at = self._clock()
        return self._after(batch, outcome)

    def _recall(self, batch: OutboxBatch, now: float) -> None:
        """Take over the times in the note of an earlier process, so that processes shorter than QUIET_SECONDS can
        resolve a doubt together."""
        if batch.doubt is None or self._recalled == batch.key:
            return
        self._recalled = batch.key
        here = self._clock()
        if batch.doubt.since is not None:
            self._tried_at = min(self._tried_at, here - max(0.0, now - batch.doubt.since))
        if batch.doubt.missing_since is not None:
            self._missing = batch.key, here - max(0.0, now - batch.doubt.missing_since)

    def _reason_for_doubt(self, batch: OutboxBatch, account: str, now: float) -> str | None:
        """Return the reason why a retry with the same key cannot show whether the batch is stored; None if it can show
        this."""
        if batch.account != account:
            return "it was first sent with another token"
        if not -CLOCK_TOLERANCE_SECONDS <= now - batch.started_at < self._settings.key_life_seconds:
            return "its Idempotency-Key is too old"
        return None

    def _after(self, batch: OutboxBatch, outcome: DeliveryOutcome) -> Pause:
        match outcome:
            case BatchStored():
                self._outbox.mark_delivered(batch)
                self._max_records = min(self._settings.max_batch_records, self._max_records * 2)
                # A proxy's limit stays, so the bytes grow slowly: about one full batch in seven gets a 413.
                self._max_bytes = min(self._settings.max_batch_bytes, self._max_bytes * 9 // 8 + 1)
                return self._went_through()
            case LogsRejected() | BatchRefused() if not batch.is_new and (
                self._quiet_rest() > 0 or not outcome.is_key_unused
            ):
                return self._refused_again(batch, outcome)
            case LogsRejected(reasons):
                _log.warning(
                    "The server rejects %d of %d logs; see factory-logs spool show (trace %s)",
                    len(reasons), len(batch.lines), batch.trace_id,
                )  # fmt: skip
                self._outbox.reject(batch, reasons)
                return self._went_through()
            case BatchRefused(message, too_large):
                self._refused(batch, message, too_large)
                return self._went_through()
            case KeyConflict(message):
                return self._resolve(batch, message)
            case Unauthorised() | TryLater():
                return self._failed(outcome, batch)

    def _refused(self, batch: OutboxBatch, message: str, too_large: bool) -> None:
        """Halve the batch, because the server does not say which log is bad. If the batch contains only one log, set
        this log aside."""
        if len(batch.lines) == 1:
            _log.warning(
                "The server rejects a log: %s; see factory-logs spool show (trace %s)", message, batch.trace_id
            )
            self._outbox.reject(batch, {0: message})
            return
        self._outbox.release(batch)
        self._max_records = len(batch.lines) // 2
        if too_large:
            self._max_bytes = max(1, len(batch.body) // 2)

    def _refused_again(self, batch: OutboxBatch, outcome: LogsRejected | BatchRefused) -> Pause:
        """Send the batch once more after the server has certainly finished every earlier request: only then does a
        refusal show that none of them is stored. If that refusal does not show it either, resolve the doubt."""
        message = outcome.message if isinstance(outcome, BatchRefused) else next(iter(outcome.reasons.values()))
        why = f"it is refused, though an earlier try may be stored: {message}"
        return self._doubted(batch, why, refusal=why)

    def _doubted(self, batch: OutboxBatch, why: str, refusal: str | None = None) -> Pause:
        """Resolve a batch in doubt, but only after the server has certainly finished every earlier request."""
        return self._wait(batch, why, refusal) if self._quiet_rest() > 0 else self._resolve(batch, why)

    def _quiet_rest(self) -> float:
        return self._tried_at + QUIET_SECONDS - self._clock()

    def _wait(self, batch: OutboxBatch, why: str, refusal: str | None = None) -> Pause:
        doubt = batch.doubt or Doubt(None)
        if doubt.since is None or refusal is not None:
            since = self._link.clock.now() - (self._clock() - self._tried_at)
            self._note(batch, replace(doubt, since=since, refusal=refusal))
        self.trouble = f"a batch is in doubt: {why}"
        return Pause(self._quiet_rest(), firm=True)

    def _note(self, batch: OutboxBatch, doubt: Doubt) -> None:
        self._recalled = batch.key
        self._outbox.note_doubt(batch, doubt)

    def _resolve(self, batch: OutboxBatch, why: str) -> Pause:
        """Mark a batch in doubt as delivered, send it again or set it aside, according to the setting `in_doubt`."""
        policy = self._settings.in_doubt
        stored: bool | None = None
        if policy == "ask":
            found = is_stored(batch, self._link)
            if isinstance(found, Unauthorised | TryLater):
                return self._failed(found)
            stored = found
            if stored is False and (rest := self._missing_for(batch)) < QUIET_SECONDS:
                self.trouble = f"a batch is in doubt: {why}"
                return Pause(QUIET_SECONDS - rest, firm=True)
        _log.warning(
            "A batch of %d logs is in doubt (%s); policy %s, found on the server: %s (trace %s)",
            len(batch.lines), why, policy, stored, batch.trace_id,
        )  # fmt: skip
        self.trouble = None
        if stored:
            self._outbox.mark_delivered(batch)
        elif stored is False or policy == "resend":
            self._outbox.release(batch)
            self.trouble = f"a batch is sent again under a new key: {why}"
            return Pause(self._backoff.failed())  # wait, because the server may report a conflict for each new key
        else:
            reason = f"in doubt: it may be stored on the server already ({why})"
            self._outbox.reject(batch, dict.fromkeys(range(len(batch.lines)), reason))
        return GO_ON

    def _missing_for(self, batch: OutboxBatch) -> float:
        """Return for how many seconds the server has reported that it does not contain the batch.

        On a cluster, a stored batch is invisible from the crash of a node until its recovery. So the server is asked
        twice.
        """
        if self._missing is None or self._missing[0] != batch.key:
            self._missing = batch.key, self._clock()
            now = self._link.clock.now()
            self._note(batch, replace(batch.doubt or Doubt(None), missing_since=now))
        return self._clock() - self._missing[1]

    def _went_through(self) -> Pause:
        if self.trouble is not None:
            _log.info("The server takes logs again")
        self.trouble = None
        self._backoff.succeeded()
        return GO_ON

    def _failed(self, outcome: Unauthorised | TryLater, batch: OutboxBatch | None = None) -> Pause:
        if self.trouble is None or (isinstance(outcome, Unauthorised) and self.trouble != outcome.message):
            trace = "" if batch is None else f" (trace {batch.trace_id})"
            _log.warning("Logs stay in the spool: %s%s", outcome.message, trace)
        self.trouble = outcome.message
        if isinstance(outcome, TryLater) and outcome.at_once:
            return GO_ON
        at_least = outcome.retry_after or 0.0
        if isinstance(outcome, Unauthorised):
            at_least = max(at_least, UNAUTHORISED_SECONDS)
        return Pause(self._backoff.failed(at_least), firm=at_least > 0)
