"""Statements drawn at random over the measurements tiger and koala, most of them valid; a seed gives the same ones."""

import random
import re
from collections.abc import Iterator

NUMBERS = ["voltage", "cycles", "temperature", '"battery.voltage"', "current"]
FIELDS = [*NUMBERS, "voltage", "cycles", "passed", "note", "missing"]
TAGS = ["jig_id", "hostname", "product_imei", "repair_id", "missing"]
SOURCES = ["tiger", "koala", "tiger, koala", "/tiger|koala/", '"autogen".tiger', "nowhere"]
SOURCE_WEIGHTS = [10, 6, 3, 2, 1, 0.5]
INTERVALS = ["1h", "30m", "6h", "1d", "97m", "1w", "2h", "12h"]
OFFSETS = ["", "", "", ", 10m", ", -25m"]
ZONES = ["Europe/Berlin", "Asia/Shanghai", "America/St_Johns", "UTC"]
FILLS = ["", "", " fill(null)", " fill(none)", " fill(0)", " fill(previous)", " fill(linear)", " fill(2.5)"]
AGGREGATES = ["count", "mean", "sum", "min", "max", "first", "last", "median", "mode", "spread", "stddev", "distinct"]
TRANSFORMATIONS = [
    "derivative({})", "derivative({}, 1h)", "non_negative_derivative({}, 10m)", "difference({})",
    "non_negative_difference({})", "cumulative_sum({})", "moving_average({}, 2)", "moving_average({}, 5)",
    "elapsed({}, 1s)", "elapsed({})",
]  # fmt: skip
CLOCK_CHANGES = [
    "time >= '2024-03-30T20:00:00Z' AND time < '2024-04-01T03:00:00Z'",
    "time > '2024-10-26T19:10:00Z' AND time <= '2024-10-28T03:00:00Z'",
]
TIMES = [f"'2024-{hour}Z'" for hour in (
    "01-30T12:00:00", "01-30T22:00:00", "01-30T22:37:30", "01-31T00:00:00", "01-31T03:20:00", "01-31T09:00:00",
    "01-31T16:00:00", "01-31T23:30:00", "02-01T06:00:00", "02-01T18:00:00",
)]  # fmt: skip


def statements(seed: int, count: int) -> Iterator[str]:
    """Draw `count` statements."""
    chance = random.Random(seed)
    for _ in range(count):
        yield _Draw(chance).statement()


_PIECES = re.compile(r"""\s+|\w+|'[^']*'|"[^"]*"|/[^/ ]*/|.""")
_STRAY = [
    "SELECT", "FROM", "WHERE", "(", ")", ",", "=", "=~", "'x'", "5", "1.5", "1h", "tiger", '"q"', "time", "AND",
    "GROUP", "BY", "fill", "LIMIT", "*", "/a/", ";", ".", "::", "::tag", "AS", "-", "now()", "$", "[", "true",
    "tz", "ON", "@", "é",
]  # fmt: skip


def broken(seed: int, count: int) -> Iterator[str]:
    """Draw statements of which a piece is missing, doubled or out of place. Most of them are no longer statements."""
    chance = random.Random(seed)
    for statement in statements(seed, count):
        pieces = _PIECES.findall(statement)
        index, what = chance.randrange(len(pieces)), chance.random()
        if what < 0.4:
            del pieces[index]
        elif what < 0.6:
            pieces.insert(index, chance.choice(pieces))
        elif what < 0.9:
            pieces.insert(index, f" {chance.choice(_STRAY)} ")
        else:
            del pieces[index + 1 :]
        text = "".join(pieces)
        if not _WITHOUT_LIMIT.search(text):  # a difference on purpose
            yield text


_WITHOUT_LIMIT = re.compile(r"^(?!.* LIMIT ).* OFFSET ")
_SERIES_LIMIT = re.compile(r" SLIMIT \d+( SOFFSET 1)?")
_MANY_SERIES = re.compile(r"WHERE .*time .*GROUP BY .*(\*|/_id/|product_imei)")


class _Draw:
    """Draws one statement."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def statement(self) -> str:
        kinds = [self._raw, self._aggregated, self._transformed, self._selected, self._nested, self._show, self._local]
        text = self._chance.choices(kinds, [5, 8, 3, 2, 2, 2, 1])[0]()
        if "percentile(" in text and "GROUP BY time(" not in text:
            return self.statement()  # of equal values InfluxDB returns the time of any
        # In a range of time InfluxDB counts for SLIMIT all series of its shards.
        return _SERIES_LIMIT.sub("", text) if _MANY_SERIES.search(text) else text

    def _one(self, *choices: str) -> str:
        return self._chance.choice(choices)

    def _maybe(self, share: float, text: str) -> str:
        return text if self._chance.random() < share else ""

    def _source(self) -> str:
        return self._chance.choices(SOURCES, SOURCE_WEIGHTS)[0]

    def _number(self) -> str:
        return self._chance.choices(NUMBERS, [6, 6, 2, 2, 1])[0]

    def _raw(self) -> str:
        columns = [self._column() for _ in range(self._chance.choice([1, 1, 2, 3]))]
        return (
            f"SELECT {', '.join(columns)} FROM {self._source()}{self._where()}{self._tags_only(0.25)}{self._order()}"
            f"{self._limits(always=True)}"
        )

    def _column(self) -> str:
        number, other = self._number(), self._number()
        column: str = self._chance.choices(
            [number, self._one(*FIELDS), self._one(*TAGS), "*", f"{number} {self._one(*'+-*/')} {other}",
             f"{number} * {self._chance.randrange(1, 5)} - 0.5", f"{number} AS x", "/volt|cyc/", f"-{number}"],
            [6, 4, 3, 1, 2, 1, 1, 1, 0.5],
        )[0]  # fmt: skip
        return column

    def _aggregate(self) -> str:
        name = self._one(*AGGREGATES[:-1])
        field = self._one(*FIELDS) if name in ("count", "first", "last") else self._number()
        if name == "mode":
            # Of other values that are equally frequent InfluxDB returns any.
            field = "passed"
        text = f"{name}({field})"
        return self._chance.choices(
            [text, f"percentile(voltage, {self._one('50', '60', '75.5', '99')})",
             f"{text} AS y", f"count(distinct({self._one(*FIELDS)}))", "count(*)", "mean(*)",
             f"mean({self._number()}) {self._one(*'+-*/')} {self._one('2', '0.5', f'max({self._number()})')}",
             f"{self._one('round', 'ceil', 'floor')}({self._one('max', 'last')}({self._number()}) * -0.01)"],
            [12, 2, 1, 1, 0.3, 0.3, 2, 1],
        )[0]  # fmt: skip

    def _aggregated(self) -> str:
        columns = [self._aggregate() for _ in range(self._chance.choice([1, 1, 1, 2, 3]))]
        return f"SELECT {', '.join(columns)} FROM {self._source()}{self._grouped()}"

    def _selected(self) -> str:
        number = self._number()
        call = self._one(
            f"top({number}, 3)", f"bottom({number}, 2)", f"top({number}, jig_id, 2)",
            f"bottom({number}, hostname, jig_id, 4)",
            f"max({number})", f"min({number})", f"first({number})", f"last({number})", "percentile(voltage, 80)",
            f"distinct({self._one(*FIELDS)})",
        )  # fmt: skip
        others = "" if call.startswith("distinct") else self._maybe(0.5, f", {self._one(*FIELDS, *TAGS)}")
        # LIMIT is one of the differences on purpose for top() and bottom().
        grouped = self._grouped(limits=not call.startswith(("top", "bottom")))
        return f"SELECT {call}{others} FROM {self._source()}{grouped}"

    def _transformed(self) -> str:
        transformation = self._one(*TRANSFORMATIONS)
        if self._chance.random() < 0.5:
            return (
                f"SELECT {transformation.format(self._number())} FROM {self._source()}{self._where()}"
                f"{self._tags_only(0.3)}{self._order()}{self._limits()}"
            )
        inner = f"{self._one('mean', 'max', 'count', 'sum', 'last', 'stddev')}({self._number()})"
        return f"SELECT {transformation.format(inner)} FROM {self._source()}{self._grouped(share=1)}"

    def _local(self) -> str:
        """Return a statement about the hours around a change of the clock."""
        # A selector in a window that begins with the repeated hour is one of the differences on purpose.
        name, intervals = self._one("min", "max", "first", "last"), ["30m", "1h", "3h", "6h", "1d"]
        if self._chance.random() < 0.5:
            name, intervals = self._one("count", "mean", "sum", "median", "spread"), [*intervals, "2h"]
        return (
            f"SELECT {name}(v) FROM clock WHERE {self._one(*CLOCK_CHANGES)} GROUP BY time({self._one(*intervals)})"
            f"{self._one(*FILLS)}{self._order()} tz('{self._one('Europe/Berlin', 'Europe/London')}')"
        )

    def _nested(self) -> str:
        number = self._number()
        inner = self._one(
            f"SELECT mean({number}) AS v FROM {self._source()}{self._grouped(limits=False)}",
            f"SELECT {number} AS v FROM {self._source()}{self._where()}{self._tags_only(0.5)}",
            f"SELECT difference({number}) AS v FROM tiger{self._tags_only(0.5)}",
            f"SELECT max({number}) - min({number}) AS v FROM tiger{self._grouped(limits=False)}",
        )
        # InfluxDB fills a series once for each of its parts, and returns nothing if a window begins before the range of
        # the statement around it.
        has_windows = "GROUP BY time(" in inner
        if has_windows:
            inner = re.sub(r"(GROUP BY time\([^)]*\), .*) fill\((0|2\.5|linear|previous)\)", r"\1", inner)
        outer = self._one("v", "count(v)", "mean(v)", "max(v)", "sum(v)", "last(v)", "v * 2", "top(v, 2)")
        share = 1.0 if has_windows else 0.6
        grouped = self._grouped(share=share) if "(" in outer else self._where() + self._tags_only(0.2) + self._limits()
        return f"SELECT {outer} FROM ({inner}){grouped}"

    def _show(self) -> str:
        tag, source, limit = (
            self._one(*TAGS),
            self._source(),
            self._maybe(0.3, f" LIMIT {self._chance.randrange(1, 4)}"),
        )
        where = self._maybe(0.3, f" WHERE {self._tag_condition()}")
        return self._one(
            f"SHOW MEASUREMENTS{limit}", f"SHOW MEASUREMENTS WHERE jig_id = 'J-01'{limit}",
            f"SHOW TAG KEYS FROM {source}{where}{limit}",
            f"SHOW TAG VALUES FROM {source} WITH KEY = {tag}{where}{limit}", f"SHOW FIELD KEYS FROM {source}{limit}",
            f"SHOW TAG VALUES FROM {source} WITH KEY =~ /_id|host/{where}{limit}",
            f"SHOW SERIES FROM {source}{where}{limit}",
        )  # fmt: skip

    def _tag_condition(self) -> str:
        tag = self._one("jig_id", "hostname", "product_imei", "missing")
        value = self._one("J-01", "J-03", "J-05")
        return self._one(
            f"jig_id = '{value}'",
            f"jig_id != '{value}'",
            "jig_id =~ /0[135]/",
            "hostname = 'CN-REG1'",
            f"{tag} !~ /REG0|352099001761481/",
            f"{tag} = ''",
            f"{tag} != ''",
            f"{tag} != '{value}'",
        )

    def _condition(self, depth: int = 0) -> str:
        if depth < 2 and self._chance.random() < 0.3:
            return f"({self._condition(depth + 1)} {self._one('AND', 'OR')} {self._condition(depth + 1)})"
        number = self._number()
        comparison = self._one("=", "!=", "<", "<=", ">", ">=")
        return self._one(
            self._tag_condition(), f"{number} {comparison} {self._one('3.3', '12', '0', '3.5', '3')}",
            f"passed {self._one('=', '!=')} {self._one('true', 'false')}",
            self._one("note = 'ok'", "note != 'ok'", "note = ''", "note != ''"),
            "note =~ /o/", f"{number} > {self._number()}",
        )  # fmt: skip

    def _span(self) -> str:
        first, last = sorted(self._chance.sample(TIMES, 2))
        return f"time {self._one('>', '>=')} {first} AND time {self._one('<', '<=')} {last}"

    def _where(self) -> str:
        parts = [self._span()] if self._chance.random() < 0.3 else []
        parts += [self._condition()] if self._chance.random() < 0.4 else []
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def _tags_only(self, share: float) -> str:
        dimension = self._one("jig_id", "hostname", "hostname, jig_id", "*", "/_id/", "product_imei")
        return self._maybe(share, f" GROUP BY {dimension}")

    def _order(self) -> str:
        return self._maybe(0.2, " ORDER BY time DESC")

    def _limits(self, *, always: bool = False) -> str:
        limit = self._maybe(1.0 if always else 0.3, f" LIMIT {self._chance.randrange(1, 12)}")
        offset = self._maybe(0.2, f" OFFSET {self._chance.randrange(0, 6)}")
        series = self._maybe(0.1, f" SLIMIT {self._chance.randrange(1, 4)}" + self._maybe(0.5, " SOFFSET 1"))
        return limit + offset + series

    def _grouped(self, *, share: float = 0.6, limits: bool = True) -> str:
        """Return what may follow the sources of a statement with functions; a time interval has bounds."""
        tags = self._maybe(0.35, self._one("jig_id", "hostname", "hostname, jig_id", "*"))
        if self._chance.random() >= share:
            limited = self._limits() if limits else ""
            return f"{self._where()}{' GROUP BY ' + tags if tags else ''}{self._order()}{limited}"
        condition = self._maybe(0.4, f" AND {self._condition()}")
        interval = f"time({self._one(*INTERVALS)}{self._one(*OFFSETS)})"
        zone = self._maybe(0.15, f" tz('{self._one(*ZONES)}')") if limits else ""
        return (
            f" WHERE {self._span()}{condition} GROUP BY {interval}{', ' + tags if tags else ''}{self._one(*FILLS)}"
            f"{self._order()}{self._limits() if limits else ''}{zone}"
        )
