"""Parse the text of a query into a list of statements.

Statements that write or manage data are recognised but not parsed, because all of them are refused.
"""

from dataclasses import replace
from zoneinfo import ZoneInfo

from factory_logs.influxql import lexer
from factory_logs.influxql.ast import (
    Binary,
    Call,
    CreateDatabase,
    Explain,
    Expression,
    Fill,
    KeyCondition,
    Literal,
    Measurement,
    Reference,
    Refused,
    Regex,
    Select,
    SelectField,
    Show,
    Shown,
    Source,
    Statement,
    nodes,
)
from factory_logs.influxql.bound_parameters import NONE, Parameters
from factory_logs.influxql.errors import ParseError
from factory_logs.influxql.expressions import ExpressionParser, ParserLimits

_BOOLEAN_OPERATORS = frozenset({"=", "!=", "=~", "!~", "<", "<=", ">", ">=", "AND", "OR"})
_HEADS: dict[str, dict[str, tuple[str, ...]]] = {
    "CREATE": {
        "CONTINUOUS": ("QUERY",), "DATABASE": (), "USER": (), "RETENTION": ("POLICY",), "SUBSCRIPTION": (),
    },
    "DROP": {
        "CONTINUOUS": ("QUERY",), "DATABASE": (), "MEASUREMENT": (), "RETENTION": ("POLICY",), "SERIES": (),
        "SHARD": (), "SUBSCRIPTION": (), "USER": (),
    },
    "ALTER": {"RETENTION": ("POLICY",)},
    "SET": {"PASSWORD": ("FOR",)},
    "KILL": {"QUERY": ()},
}  # fmt: skip
"""The first words of the statements that write or manage data, in the order of InfluxDB's errors."""
_STATEMENTS = (
    "SELECT", "DELETE", "SHOW", "CREATE", "DROP", "EXPLAIN", "GRANT", "REVOKE", "ALTER", "SET", "KILL",
)  # fmt: skip
_SHOWS = (
    "CONTINUOUS", "DATABASES", "DIAGNOSTICS", "FIELD", "GRANTS", "MEASUREMENT", "MEASUREMENTS", "QUERIES", "RETENTION",
    "SERIES", "SHARD", "SHARDS", "STATS", "SUBSCRIPTIONS", "TAG", "USERS",
)  # fmt: skip
_LARGEST_LIMIT = 2**63 - 1


def parse_query(text: str, parameters: Parameters = NONE, limits: ParserLimits | None = None) -> tuple[Statement, ...]:
    """Return the statements of a query. Raises ParseError with InfluxDB's message."""
    return _Parser(text, parameters, limits).query()


class _Parser(ExpressionParser):
    def query(self) -> tuple[Statement, ...]:
        statements: list[Statement] = []
        is_separated = True
        while (token := self.peek()).kind != lexer.EOF:
            if self.accept(";"):
                is_separated = True
                continue
            if not is_separated:
                raise self.unexpected(token, ";")
            if len(statements) == self.limits.statements:
                raise ParseError(f"the query has more than {self.limits.statements} statements")
            statements.append(self._statement())
            is_separated = False
        return tuple(statements)

    def _statement(self) -> Statement:
        token = self.next()
        match token.kind:
            case "SELECT":
                return self._select(is_subquery=False)
            case "SHOW":
                return self._show()
            case "EXPLAIN":
                analyze = self.accept("ANALYZE")
                self.expect("SELECT")
                return Explain(self._select(is_subquery=False), analyze)
            case "DELETE" | "GRANT" | "REVOKE":
                return self._refused(token.kind)
            case "CREATE" | "DROP" | "ALTER" | "SET" | "KILL":
                return self._managing(token.kind)
        raise self.unexpected(token, *_STATEMENTS)

    def _managing(self, verb: str) -> Statement:
        token = self.next()
        if token.kind not in _HEADS[verb]:
            raise self.unexpected(token, *_HEADS[verb])
        rest = _HEADS[verb][token.kind]
        self.expect(*rest)
        if (verb, token.kind) == ("CREATE", "DATABASE"):
            name = self.identifier()
            self._skip_statement()
            return CreateDatabase(name)
        return self._refused(" ".join((verb, token.kind, *rest)))

    def _refused(self, name: str) -> Refused:
        self._skip_statement()
        return Refused(name)

    def _skip_statement(self) -> None:
        while self.peek().kind not in (lexer.EOF, ";"):
            token = self.next()
            if token.kind in (lexer.BAD_STRING, lexer.BAD_ESCAPE):
                raise self.unexpected(token, "string")

    # SELECT

    def _select(self, *, is_subquery: bool) -> Select:
        self._deeper()
        fields = self._fields()
        into = self._into(is_subquery=is_subquery)
        self.expect("FROM")
        sources = self._sources(with_subqueries=True)
        condition = self._condition()
        dimensions = self._dimensions()
        fill, fill_value = self._fill()
        is_sorted, descending = self._order()
        limit, offset = self._optional_integer("LIMIT"), self._optional_integer("OFFSET")
        series_limit, series_offset = self._optional_integer("SLIMIT"), self._optional_integer("SOFFSET")
        zone = self._zone()
        self._depth -= 1
        return Select(
            fields, sources, condition, dimensions, fill, fill_value, is_sorted, descending, limit, offset,
            series_limit, series_offset, zone, into,
        )  # fmt: skip

    def _fields(self) -> tuple[SelectField, ...]:
        fields = [self._field()]
        while self.accept(","):
            fields.append(self._field())
        return tuple(fields)

    def _field(self) -> SelectField:
        expression: Expression | None = self.regex()
        if expression is None:
            start = self.peek()
            expression = self.expression()
            for node in nodes(expression):
                if isinstance(node, Binary) and node.operator in _BOOLEAN_OPERATORS:
                    error = self._lexer.error(f"invalid operator {node.operator} in SELECT clause", start.start)
                    raise ParseError(f"{error.message}; operator is intended for WHERE clause")
        return SelectField(expression, self.identifier() if self.accept("AS") else "")

    def _into(self, *, is_subquery: bool) -> Measurement | None:
        if is_subquery or not self.accept("INTO"):
            return None
        if self.accept(":"):
            self.expect("MEASUREMENT")
            return Measurement()
        parts = self.segments()
        if len(parts) < 3 and self._lexer.at(self._position) == ":":
            self.expect(":", "MEASUREMENT")
        return Measurement(parts[-1])

    def _sources(self, *, with_subqueries: bool) -> tuple[Source, ...]:
        sources = [self._source(with_subqueries=with_subqueries)]
        while self.accept(","):
            sources.append(self._source(with_subqueries=with_subqueries))
        return tuple(sources)

    def _measurements(self) -> tuple[Measurement, ...]:
        return tuple(each for each in self._sources(with_subqueries=False) if isinstance(each, Measurement))

    def _source(self, *, with_subqueries: bool) -> Source:
        found = self.regex()
        if found is not None:
            return Measurement(regex=found)
        if with_subqueries and self.accept("("):
            self.expect("SELECT")
            inner = self._select(is_subquery=True)
            self.expect(")")
            return inner
        parts = self.segments()
        pattern = self._regex_behind_names() if len(parts) < 3 else None
        if pattern is not None:
            database, policy = ["", *parts][-2:]
            return Measurement(regex=pattern, database=database, policy=policy)
        database, policy, name = ["", "", *parts][-3:]
        return Measurement(name, database=database, policy=policy)

    def _regex_behind_names(self) -> Regex | None:
        """Return the regular expression after names and a dot, or None. Raises ParseError if a space comes before
        it."""
        space, text = self._lexer.read(self._position), self._lexer
        if space.kind == lexer.WHITESPACE and text.at(space.end) == "/":
            raise text.error(f"found {text.text[space.start : space.end]}, expected regex", space.start)
        if text.at(self._position) == "/" and text.at(self._position - 1) != ".":
            return None
        return self.regex()

    def _condition(self) -> Expression | None:
        return self.expression() if self.accept("WHERE") else None

    def _dimensions(self) -> tuple[Expression, ...]:
        if not self.accept("GROUP"):
            return ()
        self.expect("BY")
        dimensions = [self.regex() or self.expression()]
        while self.accept(","):
            dimensions.append(self.regex() or self.expression())
        return tuple(dimensions)

    def _is_call_to(self, name: str) -> bool:
        token = self.peek()
        return token.kind == lexer.IDENTIFIER and token.text.lower() == name

    def _fill(self) -> tuple[Fill, float | int | None]:
        if not self._is_call_to("fill"):
            return Fill.NULL, None
        call = self.expression()
        if not isinstance(call, Call):
            raise ParseError("fill must be a function call")
        match call.arguments:
            case (Reference(("null" | "none" | "previous" | "linear") as name, None),):
                return Fill(name), None
            case (Literal(float() | int() as value),) if not isinstance(value, bool):
                return Fill.NUMBER, value
            case (_,):
                raise ParseError("expected number argument in fill()")
        raise ParseError("fill requires an argument, e.g.: 0, null, none, previous, linear")

    def _zone(self) -> str | None:
        if not self._is_call_to("tz"):
            return None
        call = self.expression()
        if not isinstance(call, Call):
            raise ParseError("tz must be a function call")
        match call.arguments:
            case (Literal(str() as name),):
                return _zone_name(name)
            case (_,):
                raise ParseError("expected string argument in tz()")
        raise ParseError("tz requires exactly one argument")

    def _order(self) -> tuple[bool, bool]:
        """Return whether the statement contains ORDER BY, and whether the order is descending."""
        if not self.accept("ORDER"):
            return False, False
        self.expect("BY")
        token = self.next()
        if token.kind in ("ASC", "DESC"):
            descending = token.kind == "DESC"
        elif token.kind == lexer.IDENTIFIER:
            descending = not self.accept("ASC") and self.accept("DESC")
            if token.text != "time":
                raise ParseError("only ORDER BY time supported at this time")
        else:
            raise self.unexpected(token, "identifier", "ASC", "DESC")
        if self.accept(","):
            self.identifier()
            raise ParseError("only ORDER BY time supported at this time")
        return True, descending

    def _optional_integer(self, kind: str) -> int:
        if not self.accept(kind):
            return 0
        token = self.next()
        if token.kind != lexer.INTEGER:
            raise self.unexpected(token, "integer")
        return min(int(token.text[:30]), _LARGEST_LIMIT)

    # SHOW

    def _show(self) -> Statement:
        token = self.next()
        match token.kind:
            case "DATABASES":
                return Show(Shown.DATABASES)
            case "USERS":
                return Show(Shown.USERS)
            case "QUERIES":
                return Show(Shown.QUERIES)
            case "CONTINUOUS":
                self.expect("QUERIES")
                return Show(Shown.CONTINUOUS_QUERIES)
            case "RETENTION":
                self.expect("POLICIES")
                return Show(Shown.RETENTION_POLICIES, self._on())
            case "MEASUREMENTS":
                return self._show_measurements()
            case "MEASUREMENT":
                return self._cardinality(Shown.MEASUREMENT_CARDINALITY, ("EXACT", "CARDINALITY"))
            case "SERIES":
                return self._show_series()
            case "FIELD":
                return self._show_field_keys()
            case "TAG":
                return self._show_tags()
            case "DIAGNOSTICS" | "GRANTS" | "SHARD" | "SHARDS" | "STATS" | "SUBSCRIPTIONS":
                return self._refused(f"SHOW {token.kind}")
        raise self.unexpected(token, *_SHOWS)

    def _on(self) -> str:
        return self.identifier() if self.accept("ON") else ""

    def _from(self) -> tuple[Measurement, ...]:
        return self._measurements() if self.accept("FROM") else ()

    def _ending(self, show: Show, *, with_series_limits: bool = False) -> Show:
        is_sorted, descending = self._order()
        limit, offset = self._optional_integer("LIMIT"), self._optional_integer("OFFSET")
        if with_series_limits:
            self._optional_integer("SLIMIT")
            self._optional_integer("SOFFSET")
        return replace(show, is_sorted=is_sorted, descending=descending, limit=limit, offset=offset)

    def _show_measurements(self) -> Show:
        database, measurement = self._on(), None
        if self.accept("WITH"):
            self.expect("MEASUREMENT")
            token = self.next()
            if token.kind not in ("=", "=~"):
                raise self.unexpected(token, "=", "=~")
            source = self._source(with_subqueries=False)
            measurement = source if isinstance(source, Measurement) else None
        show = Show(Shown.MEASUREMENTS, database, with_measurement=measurement, condition=self._condition())
        return self._ending(show)

    def _show_series(self) -> Show:
        exact = self.accept("EXACT")  # InfluxDB also accepts EXACT without CARDINALITY
        if self.peek().kind == "CARDINALITY":
            return replace(self._cardinality(Shown.SERIES_CARDINALITY, ("CARDINALITY",)), exact=exact)
        return self._ending(Show(Shown.SERIES, self._on(), self._from(), condition=self._condition()))

    def _show_field_keys(self) -> Show:
        token = self.next()
        if token.kind == "KEY":
            return self._cardinality(Shown.FIELD_KEY_CARDINALITY, ("EXACT", "CARDINALITY"))
        if token.kind != "KEYS":
            raise self.unexpected(token, "KEY", "KEYS")
        return self._ending(Show(Shown.FIELD_KEYS, self._on(), self._from()))

    def _show_tags(self) -> Show:
        token = self.next()
        match token.kind:
            case "KEY":
                return self._cardinality(Shown.TAG_KEY_CARDINALITY, ("EXACT", "CARDINALITY"))
            case "KEYS":
                show = Show(Shown.TAG_KEYS, self._on(), self._from(), condition=self._condition())
                return self._ending(show, with_series_limits=True)
            case "VALUES" if self.peek().kind in ("EXACT", "CARDINALITY"):
                return self._cardinality(Shown.TAG_VALUES_CARDINALITY, ("CARDINALITY",), with_key=True)
            case "VALUES":
                database, sources, key = self._on(), self._from(), self._with_key()
                return self._ending(Show(Shown.TAG_VALUES, database, sources, key=key, condition=self._condition()))
        raise self.unexpected(token, "KEY", "KEYS", "VALUES")

    def _cardinality(self, shown: Shown, expected: tuple[str, ...], *, with_key: bool = False) -> Show:
        exact = self.accept("EXACT")
        token = self.next()
        if token.kind != "CARDINALITY":
            raise self.unexpected(token, *(("CARDINALITY",) if exact else expected))
        database, sources = self._on(), self._from()
        key = self._with_key() if with_key else None
        condition, dimensions = self._condition(), self._dimensions()
        limit, offset = self._optional_integer("LIMIT"), self._optional_integer("OFFSET")
        return Show(
            shown, database, sources, key=key, condition=condition, dimensions=dimensions, limit=limit, offset=offset,
            exact=exact,
        )  # fmt: skip

    def _with_key(self) -> KeyCondition:
        self.expect("WITH", "KEY")
        token = self.next()
        match token.kind:
            case "IN":
                self.expect("(")
                names = [self.identifier()]
                while self.accept(","):
                    names.append(self.identifier())
                self.expect(")")
                return KeyCondition("IN", tuple(names))
            case "=" | "!=":
                return KeyCondition(token.kind, (self.identifier(),))
            case "=~" | "!~":
                return KeyCondition(token.kind, regex=self._pattern())
        raise self.unexpected(token, "IN", "=", "=~")


def _zone_name(name: str) -> str:
    try:
        ZoneInfo(name or "UTC")
    except (ValueError, OSError, LookupError):
        raise ParseError(f"unable to find time zone {name}") from None
    return name or "UTC"
