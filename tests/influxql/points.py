"""The points in both servers when their responses are compared.

A series has at most one point for each time, because InfluxDB would overwrite the other. Each time is a whole
microsecond, the resolution of Factory Logs. A field with one type in InfluxDB also has one type here.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.influxdb.strategies import escaped, written

DATABASE = "factory_logs"
IMEIS = ("352099001761481", "352099001770037", "352099003764608")
FIRST = datetime(2024, 1, 30, 22, 13, 20, tzinfo=UTC)
"""The time of the first point of the measurements tiger and koala, which last for 36 hours."""

Value = float | int | bool | str


def point(measurement: str, tags: dict[str, str], fields: dict[str, Value], time: datetime | int) -> str:
    """Return one line; `time` is in nanoseconds if it is a number."""
    head = escaped(measurement, ", ") + "".join(f",{escaped(key)}={escaped(value)}" for key, value in tags.items())
    body = ",".join(f"{escaped(key)}={written(value)}" for key, value in fields.items())
    return f"{head} {body} {time if isinstance(time, int) else nanoseconds(time)}"


def nanoseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def lines(now: datetime) -> list[str]:
    """Return the line of each point; the points of the measurement recent end at `now`."""
    return [
        *_jigs(), *_summer_time(), *_strange_names(), *_namesakes(), *_strange_values(), *_dense(),
        *(point("recent", {"n": str(n % 2)}, {"v": n}, now - timedelta(minutes=7 * n + 1)) for n in range(20)),
    ]  # fmt: skip


def _jigs() -> Iterator[str]:
    """Return two measurements that share some tags and fields; some tags and fields are missing, and some hours are
    empty."""
    chance = random.Random(20240131)
    for number in range(240):
        hour, second = divmod(number * 541, 3600)
        if hour % 9 == 5:
            continue
        app = "koala" if number % 5 == 3 else "tiger"
        tags = {"jig_id": f"J-0{number % 4 + (3 if app == 'koala' else 0)}"}
        if number % 3:
            tags["hostname"] = f"CN-REG{number % 2}"
        if number % 4 == 0:
            tags["product_imei"] = IMEIS[number % 3]
        if app == "koala" and number % 2:
            tags["repair_id"] = str(1 + number % 3)
        fields: dict[str, Value] = {
            "passed": chance.random() > 0.2, "voltage": round(chance.gauss(3.3, 0.2), 3),
            "cycles": chance.randrange(50),
        }  # fmt: skip
        if number % 6 == 0:
            fields["temperature"] = chance.choice([-3.5, 0.0, 12.25, 21.0, 37.125])
        if number % 4 == 1:
            fields["note"] = chance.choice(["ok", "weak battery", "", "正常", "a 'quoted' \"word\""])
        if app == "tiger":
            fields["battery.voltage"] = round(chance.uniform(2.9, 4.2), 2)
        else:
            fields["current"] = chance.randrange(-20, 400)
            if number % 10 == 3:
                del fields["voltage"]
        yield point(app, tags, fields, FIRST + timedelta(hours=hour, seconds=second, microseconds=number))


def _summer_time() -> Iterator[str]:
    """Return points in the hours around both clock changes in Berlin in 2024."""
    for day in (datetime(2024, 3, 30, tzinfo=UTC), datetime(2024, 10, 26, tzinfo=UTC)):
        for number in range(72):
            yield point("clock", {"zone": "Berlin"}, {"v": number}, day + timedelta(minutes=40 * number))


def _strange_names() -> Iterator[str]:
    names = ["plain", "with space", "a,comma", "an=equals", 'a"quote', "it's", "ünï", "back\\slash", "a.dot", "select"]
    for number, name in enumerate(names):
        for again in range(2):
            tags = {name: f"{name} {again}", "k": names[-1 - number]}
            yield point(
                f"odd {name}" if number % 2 else "odd", tags, {name + "_f": number + again / 4, "same": number},
                FIRST + timedelta(minutes=number, seconds=again),
            )  # fmt: skip


def _namesakes() -> Iterator[str]:
    """Return points with a tag and a field of the same name."""
    for number in range(6):
        tags = {"line": f"L{number % 2}", "shift": "day" if number < 3 else "night"}
        yield point("namesakes", tags, {"line": number}, FIRST + timedelta(minutes=number))


def _strange_values() -> Iterator[str]:
    numbers = [
        0.1,
        1.0,
        -0.5,
        123456789.125,
        1e-7,
        1.5e300,
        5e-324,
        3.0000000000000004,
        1e6,
        999999.9,
        1e20,
        12345678.9,
    ]
    for index, number in enumerate(numbers):
        yield point("floats", {"n": f"{index:02}"}, {"f": number}, FIRST + timedelta(seconds=index))
    for index, whole in enumerate([0, -1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 7]):
        yield point("integers", {"n": str(index)}, {"i": whole}, FIRST + timedelta(seconds=index))
    texts = [
        "",
        " ",
        "plain",
        'with "quotes"',
        "back\\slash",
        "two\nlines",
        "<b>&amp;</b>",
        "ünï 正常 😀",
        "a\u2028b",
        "1",
    ]
    for index, text in enumerate(texts):
        yield point("texts", {}, {"s": text, "n": index}, FIRST + timedelta(seconds=index))
    for index, verdict in enumerate([True, True, False, True, False, False]):
        yield point("verdicts", {}, {"b": verdict}, FIRST + timedelta(minutes=index))
    yield point("ancient", {"a": "b"}, {"v": 1}, datetime(1962, 3, 4, 5, 6, 7, 890, tzinfo=UTC))
    yield point("ancient", {"a": "b"}, {"v": 2}, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
    yield point("ancient", {"a": "b"}, {"v": 3}, 0)


def _dense() -> Iterator[str]:
    """Return a point for each second, in two series whose values rise, fall and repeat, and whose counters are
    reset."""
    for number in range(600):
        tags = {"half": "even" if number % 2 == 0 else "odd"}
        fields: dict[str, Value] = {"counter": number * 3 % 400, "level": (number * 7919 % 101) / 8}
        if number % 7 == 0:
            fields["sparse"] = number
        yield point("dense", tags, fields, FIRST + timedelta(seconds=number))
