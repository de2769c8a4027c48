"""The parser compared with InfluxDB 1.6, line by line."""

import pytest

from factory_logs.influxdb.line_protocol import LineError, parse_line, parse_series, parse_time
from tests.influxd import Influxd
from tests.influxdb.lines import split_lines

SAME = [
    "m,a=b f=1i 5", "m f=t 1", "m f=True 1", "m f=TRUE 1", "m f=tRUE 1", 'm f="a\nb" 1', r'm f="a\"b\\c\d\n" 1',
    r"m\,x,a\=1=b\ c f\ x=1 1", "m f=1e5 1", "m f=-1.5E-3 1", "m f=.5 1", "m f=5. 1", "m f=+1 1", "m f=-1i 1",
    "m f=1e5i 1", "m f=1.0i 1", "# comment", "  # comment", "#m f=1 1", "",
    "m  f=1 1", "m f=1  1", "  m f=1 1", "m f=1 1  ",
    "m,a=b,a=c f=1 1", "m f=1,f=2 1", "m,a=\\ f=1 1", r"m\\ f=1 1", r"m\x f=1 1", r"m\=x f=1 1", "m=x f=1 1",
    "m f=9223372036854775807i 1", "m f=9223372036854775808i 1", "m f=-9223372036854775808i 1", "m f=NaN 1",
    "m f=Inf 1", "m,t= f=1 1", "m f= 1", "m f=1 x", 'm,a=é f="ü" 1', "m,=b f=1 1", "m f=0x10 1", "m f=1_0i 1",
    'm,a="b c" f=1 1', 'm,a="b" f=1 1', "m f=1e400 1", "m f=1 99999999999999999999", "m f=1 9223372036854775806",
    "m f=1 9223372036854775807", "m f=1 -9223372036854775806", "m f=1 -9223372036854775807", "m f=1 -5", "m f=1 +5",
    "m f=1 5 6", "m f=1 5x", ",a=b f=1 1", " f=1 1", "m,a f=1 1", "m,a=b, f=1 1", "m f=1, 1", "m =1 1", "m f 1",
    'm f="a 1', 'm f="a",g="b" 1', 'm f="a=b,c d" 1', 'm "f"=1 1', 'm "f g"=1 1', "m,a=b=c f=1 1", "m f=1=2 1",
    "m f=a 1", "m f=truee 1", "m f=1i2 1", "m f=-i 1", "m f=- 1", "m f=. 1", "m f=e5 1", "m f=1e 1", "m f=01i 1",
    "m f=007 1", "m f=1\t1", "m\tx f=1 1", "m,a=b\tc f=1 1", r'm f="\\" 1', r'm f="\\\"" 1', r'm f="a\,b\ c\=d" 1',
    r"m,a=x\\\,y f=1 1", r"m,a=x\y f=1 1", r"m f\=g=1 1", r"m f\,g=1 1", r"m f\\g=1 1", r"m,a\,b=1 f=1 1",
    r'm a\"b=1 1', r'm a\"b="c" 1', r'm,a\"b=c f=1 1', r'm\"b f=1 1', "m f=1 1 # x",
    "m,a=a\nb f=1 1", "m\nf f=1 1", "m f\n=1 1", 'm f="a\r\nb" 1', r'm,a=\" f=1 1', r"\m f=1 1",
    r"m\ #x f=1 1", r"\#m f=1 1", 'm f="a" 2\nm g="b\n" 1',
]  # fmt: skip

OUR_OWN = {
    "m f=1 5\r\nm f=1 6\r\n": "later versions take CRLF, 1.6 does not",
    "m f=1u 1": "1.6 is built without unsigned integers",
    'm f="a"b 1': "1.6 takes it for the string a\" and drops the b",
    "m time=1 1": "InfluxDB reserves the name time; a log may have such a field",
}  # fmt: skip


def mine(text: str) -> tuple[list[dict[str, object]], bool]:
    points: list[dict[str, object]] = []
    refused = False
    for _, line in split_lines(text, 1000):
        try:
            head, fields, time = parse_line(line)
            series = parse_series(head)
            points.append({"name": series.measurement, "tags": series.tags, "time": parse_time(time, 1)} | fields)
        except LineError:
            refused = True
    return sorted(points, key=lambda point: str(point["time"])), refused


def theirs(influxd: Influxd, text: str) -> tuple[list[dict[str, object]], bool]:
    influxd.http.post("/query", params={"q": "CREATE DATABASE lines"}).raise_for_status()
    response = influxd.http.post("/write", params={"db": "lines"}, content=text.encode())
    points = influxd.query("SELECT * FROM /.*/ GROUP BY *", "lines")
    influxd.http.post("/query", params={"q": "DROP DATABASE lines"}).raise_for_status()
    assert response.status_code in (204, 400)
    return points, response.status_code == 400


@pytest.mark.parametrize("text", SAME)
def test_influxdb_accepts_the_same_lines_with_the_same_values(influxd: Influxd, text: str) -> None:
    assert mine(text) == theirs(influxd, text)


@pytest.mark.parametrize("text", OUR_OWN)
def test_the_documented_differences_from_version_1_6_exist(influxd: Influxd, text: str) -> None:
    assert mine(text) != theirs(influxd, text)
