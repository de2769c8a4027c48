"""Read the file of the retention policies (docs/how-to/operating.md#retention-each-day)."""

import os
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from factory_logs.durations import parse_duration
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.query import QueryLimits
from factory_logs.retention.removal import Expired, expired

MOST_POLICIES = 100
"""The maximum number of policies, because the name of each policy is a label of the metrics."""
_FORM = "one or more tables [[policy]], each with name and older_than"


@dataclass(frozen=True, slots=True)
class Policy:
    """Defines expired logs: they are older than `older_than`, and the filters of `q` select them.

    Before the logs are removed, they are written to a new archive in the folder `archive`; None means no archive.
    """

    name: str
    older_than: str
    age: timedelta
    q: str | None
    archive: Path | None

    def expired(self, now: datetime, limits: QueryLimits) -> Expired:
        """Return the selection of the logs that have expired at `now`, a time with a zone."""
        return expired((now.astimezone(UTC) - self.age).replace(tzinfo=None), self.q, limits)

    def __str__(self) -> str:
        """Return a readable line: name, age, filters and archive."""
        selected = "" if self.q is None else f" that {' '.join(self.q.split())} selects"
        archived = "" if self.archive is None else f", archived in {self.archive}"
        return f"{self.name}: logs older than {self.older_than}{selected}{archived}"


class _Given(BaseModel):
    """A table of the file, which defines one policy."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")]
    older_than: str
    q: str | None = None
    archive: Annotated[str, Field(min_length=1)] | None = None


def read_policies(file: Path, limits: QueryLimits) -> tuple[Policy, ...]:
    """Return the policies in a file, in the order of the file. Raises BadRequestError, which lists the policy and the
    key of each error.

    A relative path in `archive` is relative to the folder that contains the file.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadRequestError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{file} is not TOML: {error}") from None
    tables = content.pop("policy", None)
    if content or not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        also = f"; unknown: {', '.join(content)}" if content else ""
        raise BadRequestError(f"{file} must contain {_FORM}{also}")
    if len(tables) > MOST_POLICIES:
        raise BadRequestError(f"{file} contains {len(tables)} policies, but at most {MOST_POLICIES} are allowed")
    policies: list[Policy] = []
    errors: list[FieldError] = []
    for number, table in enumerate(tables, 1):
        found = list(_errors(table, _title(table, number), limits))
        errors += found
        if not found:
            policies.append(_policy(_Given(**table), file))
    names = Counter(policy.name for policy in policies)
    errors += [FieldError(f"policy {name!r}: name", "two policies have this name") for name in names if names[name] > 1]
    if errors:
        raise BadRequestError(f"{file} is not valid", errors)
    return tuple(policies)


def _title(table: dict[str, Any], number: int) -> str:
    name = table.get("name")
    return f"policy {name!r}" if isinstance(name, str) and name else f"policy {number}"


def _errors(table: dict[str, Any], title: str, limits: QueryLimits) -> Iterator[FieldError]:
    try:
        given = _Given(**table)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            yield FieldError(f"{title}: {'.'.join(map(str, problem['loc']))}", problem["msg"])
        return
    try:
        parse_duration(given.older_than)
    except BadRequestError as error:
        yield FieldError(f"{title}: older_than", error.message)
    try:
        expired(datetime.max, given.q, limits)
    except BadRequestError as error:
        yield FieldError(f"{title}: q", "; ".join([error.message, *map(str, error.errors)]))


def _policy(given: _Given, file: Path) -> Policy:
    archive = None if given.archive is None else file.parent.resolve() / Path(given.archive).expanduser()
    return Policy(given.name, given.older_than, parse_duration(given.older_than), given.q, archive)


def check_archives(policies: tuple[Policy, ...]) -> None:
    """Check that each archive folder can be written to or created. Raises BadRequestError."""
    errors = []
    for policy in policies:
        if policy.archive is None:
            continue
        there = next(folder for folder in (policy.archive, *policy.archive.parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            errors.append(FieldError(f"policy {policy.name!r}: archive", f"this user cannot write to {there}"))
    if errors:
        raise BadRequestError("The retention policies cannot write their archives", errors)
