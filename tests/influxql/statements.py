"""Statements chosen by hand, by clause, over the points of points.py.

`RESPONDED` have a series in InfluxDB's response, `EMPTY` have none and no error, `REFUSED` have an error. That is
checked too, so that a statement shows what it is here for. DAY, SPAN, BERLIN, AUTUMN stand for conditions on time.
"""

_WORDS = {
    "DAY": "time >= '2024-01-30T22:00:00Z' AND time < '2024-01-31T22:00:00Z'",
    "SPAN": "time >= '2024-01-30T22:13:00Z' AND time <= '2024-01-30T22:24:00Z'",
    "BERLIN": "time >= '2024-03-30T00:00:00Z' AND time < '2024-04-01T00:00:00Z'",
    "AUTUMN": "time >= '2024-10-26T00:00:00Z' AND time < '2024-10-28T00:00:00Z'",
}


def _statements(text: str) -> list[str]:
    """Return the statement of each line, with the words for conditions replaced; a line of # is a heading."""
    lines = [line.strip() for line in text.splitlines()]
    found = []
    for line in lines:
        if line and not line.startswith("#"):
            for word, condition in _WORDS.items():
                line = line.replace(word, condition)
            found.append(line)
    return found


RESPONDED = _statements(r"""
# fields, tags, wildcards, aliases
SELECT voltage FROM tiger WHERE DAY
SELECT voltage, jig_id FROM tiger WHERE DAY LIMIT 20
SELECT * FROM tiger WHERE DAY LIMIT 20
SELECT * FROM koala
SELECT *::field FROM koala LIMIT 5
SELECT *::tag, voltage FROM koala LIMIT 5
SELECT "battery.voltage" FROM tiger LIMIT 5
SELECT battery.voltage FROM tiger LIMIT 5
SELECT "voltage" AS "v", cycles AS c FROM tiger LIMIT 5
SELECT voltage AS "a b", voltage AS "time2" FROM tiger LIMIT 5
SELECT voltage, voltage FROM tiger LIMIT 5
SELECT voltage, voltage AS voltage FROM tiger LIMIT 5
SELECT voltage, voltage, voltage AS voltage_1 FROM tiger LIMIT 5
SELECT voltage::float, cycles::integer, note::string, passed::boolean, jig_id::tag FROM tiger LIMIT 8
SELECT voltage::field, cycles::integer FROM tiger LIMIT 3
SELECT cycles::float FROM tiger LIMIT 3
SELECT voltage::integer FROM tiger LIMIT 3
SELECT /vol/ FROM tiger LIMIT 5
SELECT /^c/, jig_id FROM koala LIMIT 5
SELECT /jig|volt/ FROM tiger LIMIT 5
SELECT time, voltage FROM tiger LIMIT 5
SELECT voltage, time FROM tiger LIMIT 5
SELECT time AS t, voltage FROM tiger LIMIT 5
SELECT temperature FROM tiger
SELECT temperature, note FROM tiger LIMIT 30
SELECT note FROM tiger
SELECT nothing, voltage FROM tiger LIMIT 3
SELECT "with space_f", k FROM "odd with space"
SELECT * FROM "odd an=equals"
SELECT * FROM "odd it's"
SELECT * FROM "odd back\\slash"
SELECT * FROM odd
SELECT "a\"quote_f" FROM odd
SELECT "ünï_f" FROM odd
SELECT "select_f" FROM "odd select"
SELECT f FROM floats
SELECT i FROM integers
SELECT s FROM texts
SELECT * FROM texts
SELECT b FROM verdicts
SELECT v FROM ancient
SELECT * FROM ancient WHERE time < 0
# arithmetic
SELECT voltage + 1 FROM tiger LIMIT 5
SELECT voltage * cycles FROM tiger LIMIT 5
SELECT cycles + cycles FROM tiger LIMIT 5
SELECT cycles / 2 FROM tiger LIMIT 5
SELECT cycles / cycles FROM tiger LIMIT 8
SELECT cycles % 7 FROM tiger LIMIT 8
SELECT voltage % 2 FROM tiger LIMIT 5
SELECT cycles - voltage AS d FROM tiger LIMIT 5
SELECT -voltage FROM tiger LIMIT 5
SELECT (voltage + 1) * 2 AS w, cycles * 2 FROM tiger LIMIT 5
SELECT voltage / 0 FROM tiger LIMIT 5
SELECT cycles / 0 FROM tiger LIMIT 5
SELECT cycles & 3, cycles | 64, cycles ^ 1 FROM tiger LIMIT 8
SELECT passed & true, passed | false, passed ^ true FROM tiger LIMIT 8
SELECT temperature + voltage FROM tiger LIMIT 20
SELECT 2 * 3 + voltage FROM tiger LIMIT 3
SELECT i + 1 FROM integers
SELECT i * 2 FROM integers WHERE n = '1' OR n = '6'
SELECT voltage + voltage, voltage - voltage FROM tiger LIMIT 3
SELECT mean(voltage) * 2, max(cycles) - min(cycles) AS range FROM tiger WHERE DAY
SELECT sum(voltage) / count(voltage) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT 10 / max(cycles), max(cycles) / 10 FROM tiger
SELECT mean(voltage) + mean(temperature) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT mean(voltage) - 3.3 FROM tiger GROUP BY jig_id
SELECT -mean(voltage) FROM tiger
SELECT (max(voltage) - min(voltage)) / 2 AS half FROM tiger GROUP BY jig_id
# several measurements, regular expressions, names with database and policy
SELECT voltage FROM tiger, koala LIMIT 5
SELECT voltage, current FROM koala, tiger LIMIT 5
SELECT * FROM tiger, koala LIMIT 4
SELECT voltage FROM /tiger|koala/ LIMIT 4
SELECT count(voltage) FROM /.*/
SELECT mean(voltage) FROM /^(tiger|koala)$/ WHERE DAY GROUP BY time(12h)
SELECT same FROM /odd/ LIMIT 2
SELECT same FROM /odd\swith/ LIMIT 2
SELECT count(voltage) FROM "factory_logs"."autogen"."tiger"
SELECT count(voltage) FROM "factory_logs".."tiger"
SELECT count(voltage) FROM "autogen"."tiger"
SELECT count(voltage) FROM factory_logs.autogen./tiger|koala/
SELECT count(v), count(voltage) FROM clock, tiger
SELECT mean(voltage) FROM tiger, koala GROUP BY jig_id
# where: tags
SELECT voltage FROM tiger WHERE jig_id = 'J-01' LIMIT 10
SELECT voltage FROM tiger WHERE jig_id != 'J-01' LIMIT 10
SELECT voltage FROM tiger WHERE jig_id <> 'J-01' LIMIT 10
SELECT voltage FROM tiger WHERE 'J-01' = jig_id LIMIT 10
SELECT voltage FROM tiger WHERE jig_id =~ /J-0[12]/ LIMIT 10
SELECT voltage FROM tiger WHERE jig_id !~ /J-0[12]/ LIMIT 10
SELECT voltage FROM tiger WHERE jig_id =~ /(?i)j-01/ LIMIT 10
SELECT voltage FROM tiger WHERE hostname = '' LIMIT 10
SELECT voltage FROM tiger WHERE hostname != '' LIMIT 10
SELECT voltage FROM tiger WHERE hostname =~ /.*/ LIMIT 10
SELECT voltage FROM tiger WHERE hostname =~ /.+/ LIMIT 10
SELECT voltage FROM tiger WHERE hostname !~ /.+/ LIMIT 10
SELECT voltage FROM tiger WHERE hostname =~ /^$/ LIMIT 10
SELECT voltage FROM tiger WHERE hostname != 'CN-REG1' LIMIT 10
SELECT voltage FROM tiger WHERE product_imei = '352099001761481' LIMIT 10
SELECT voltage FROM tiger WHERE product_imei =~ /^352/ AND jig_id = 'J-00' LIMIT 10
SELECT cycles FROM koala WHERE repair_id = '1'
SELECT cycles FROM koala WHERE repair_id != '1' LIMIT 10
SELECT cycles, repair_id FROM koala WHERE repair_id =~ /[12]/
SELECT voltage FROM tiger WHERE nothing = '' LIMIT 5
SELECT voltage FROM tiger WHERE nothing != 'x' LIMIT 5
SELECT voltage FROM tiger WHERE "jig_id"::tag = 'J-01' LIMIT 5
SELECT line, line::tag FROM namesakes WHERE line > 1 AND line::tag = 'L1'
SELECT count(line) FROM namesakes GROUP BY line
SELECT same FROM "odd with space" WHERE "with space" = 'with space 0'
SELECT same FROM "odd it's" WHERE "it's" = 'it\'s 1'
SELECT same FROM odd WHERE "a\"quote" = 'a"quote 0'
SELECT same FROM odd WHERE "ünï" = 'ünï 1'
SELECT same FROM "odd back\\slash" WHERE "back\\slash" = 'back\\slash 1'
SELECT same FROM /odd/ WHERE k =~ /a\.d|a,c/
# where: fields
SELECT voltage FROM tiger WHERE voltage > 3.5
SELECT voltage FROM tiger WHERE voltage >= 3.5 AND voltage <= 3.6
SELECT voltage FROM tiger WHERE 3.5 < voltage
SELECT voltage FROM tiger WHERE voltage::field > 3.5
SELECT voltage FROM tiger WHERE voltage::float > 3.5
SELECT cycles FROM tiger WHERE cycles = 7
SELECT cycles FROM tiger WHERE cycles != 7 LIMIT 10
SELECT cycles FROM tiger WHERE cycles = 7.0
SELECT cycles FROM tiger WHERE cycles > 6.5 AND cycles < 9.5
SELECT voltage FROM tiger WHERE passed = true LIMIT 10
SELECT voltage FROM tiger WHERE passed = false LIMIT 10
SELECT voltage FROM tiger WHERE passed != true LIMIT 10
SELECT voltage FROM tiger WHERE passed <> false LIMIT 10
SELECT note FROM tiger WHERE note = 'ok'
SELECT note FROM tiger WHERE note = ''
SELECT note FROM tiger WHERE note != ''
SELECT voltage FROM tiger WHERE note = '正常'
SELECT note FROM tiger WHERE note =~ /weak/
SELECT note FROM tiger WHERE note !~ /weak/
SELECT note FROM tiger WHERE note = 'a \'quoted\' "word"'
SELECT voltage, note FROM tiger WHERE note = 'ok' OR voltage > 3.5
SELECT voltage FROM tiger WHERE temperature > 0
SELECT voltage FROM tiger WHERE temperature = 0
SELECT voltage, temperature FROM tiger WHERE temperature < 13 AND voltage < 3.4
SELECT s FROM texts WHERE s = 'two\nlines'
SELECT s FROM texts WHERE s = 'back\\slash'
SELECT s FROM texts WHERE s =~ /^\s*$/
SELECT voltage FROM tiger WHERE voltage > 3.3 AND jig_id = 'J-01'
SELECT voltage FROM tiger WHERE voltage > 3.3 OR jig_id = 'J-01' LIMIT 20
SELECT voltage FROM tiger WHERE (voltage > 3.5 AND jig_id = 'J-01') OR (voltage < 3 AND jig_id != 'J-01')
SELECT voltage FROM tiger WHERE voltage > 3.3 AND (jig_id = 'J-01' OR hostname = 'CN-REG0') LIMIT 20
SELECT voltage FROM tiger WHERE voltage + 1 > 4.5 LIMIT 20
SELECT voltage FROM tiger WHERE voltage > cycles LIMIT 20
SELECT cycles FROM tiger WHERE cycles % 2 = 0 LIMIT 20
SELECT cycles FROM tiger WHERE cycles & 3 = 1 LIMIT 20
SELECT cycles FROM tiger WHERE cycles | 8 = 12 OR 5 = cycles ^ 1
SELECT cycles FROM tiger WHERE cycles & 3 = cycles LIMIT 20
SELECT cycles FROM tiger WHERE (cycles + 1) & 6 > 3 LIMIT 20
SELECT count(cycles) FROM tiger WHERE cycles & -4 != 0 GROUP BY jig_id
SELECT i FROM integers WHERE i & 1 = 1
SELECT cycles FROM tiger WHERE "battery.voltage" > 4 LIMIT 20
SELECT count(voltage) FROM tiger WHERE passed = false GROUP BY jig_id
SELECT i FROM integers WHERE i = 9223372036854775807
SELECT i FROM integers WHERE i > 9007199254740992
SELECT f FROM floats WHERE f < 0.0000002
SELECT voltage FROM tiger WHERE true LIMIT 3
# where: time
SELECT voltage FROM tiger WHERE time = '2024-01-30T22:13:20Z'
SELECT voltage FROM tiger WHERE time > '2024-01-30T22:13:20Z' AND time < '2024-01-30T23:13:20Z'
SELECT voltage FROM tiger WHERE time >= '2024-01-30 22:13:20' AND time <= '2024-01-30 23:13:20.5'
SELECT voltage FROM tiger WHERE time < '2024-01-31' LIMIT 5
SELECT voltage FROM tiger WHERE time >= '2024-01-31' LIMIT 5
SELECT voltage FROM tiger WHERE time >= '2024-01-30T22:22:21.000001Z' LIMIT 2
SELECT voltage FROM tiger WHERE time > '2024-01-30T22:22:21.000001Z' LIMIT 2
SELECT voltage FROM tiger WHERE time >= 1706652800000000000 AND time < 1706652800000000000 + 1h
SELECT voltage FROM tiger WHERE time >= 1706652800s AND time < 1706656400s
SELECT voltage FROM tiger WHERE time >= 1706652800000ms AND time < 1706656400000ms
SELECT voltage FROM tiger WHERE time >= 1706652800000000u AND time < 28444274m
SELECT voltage FROM tiger WHERE time >= '2024-01-30T22:13:20Z' + 1h AND time < '2024-01-30T22:13:20Z' + 90m
SELECT voltage FROM tiger WHERE time < now() AND time > now() - 520w LIMIT 3
SELECT voltage FROM tiger WHERE '2024-01-31T00:00:00Z' < time LIMIT 3
SELECT voltage FROM tiger WHERE time >= '2024-01-31T00:00:00+02:00' LIMIT 3
SELECT voltage FROM tiger WHERE time >= '2024-01-31T00:00:00Z' AND (time < '2024-01-31T02:00:00Z' AND jig_id = 'J-01')
SELECT v FROM recent WHERE time > now() - 1h
SELECT last(v) FROM recent WHERE time > now() - 1d
SELECT v FROM ancient WHERE time < '1970-01-01'
# group by tags, order of series
SELECT voltage FROM tiger WHERE SPAN GROUP BY jig_id
SELECT mean(voltage) FROM tiger GROUP BY jig_id
SELECT mean(voltage) FROM tiger GROUP BY hostname
SELECT mean(voltage) FROM tiger GROUP BY hostname, jig_id
SELECT mean(voltage) FROM tiger GROUP BY jig_id, hostname
SELECT mean(voltage) FROM tiger GROUP BY *
SELECT mean(voltage) FROM tiger GROUP BY /host|jig/
SELECT mean(voltage) FROM tiger GROUP BY nothing
SELECT last(voltage) FROM tiger GROUP BY nothing
SELECT first(voltage) FROM tiger, koala GROUP BY jig_id, nothing
SELECT last(v) FROM /clock|recent|tiger/ GROUP BY jig_id
SELECT count(cycles) FROM koala GROUP BY repair_id
SELECT count(cycles) FROM koala GROUP BY product_imei, repair_id
SELECT mean(voltage) FROM koala, tiger GROUP BY hostname
SELECT voltage FROM tiger, koala WHERE SPAN GROUP BY *
SELECT count(same) FROM /odd/ GROUP BY k
SELECT count(same) FROM "odd with space" GROUP BY "with space"
SELECT mean(voltage) FROM tiger GROUP BY jig_id ORDER BY time DESC
SELECT jig_id, voltage FROM tiger WHERE SPAN GROUP BY jig_id
SELECT *  FROM tiger WHERE SPAN GROUP BY jig_id
# group by time
SELECT count(voltage) FROM tiger WHERE DAY GROUP BY time(1h)
SELECT count(temperature) FROM tiger WHERE DAY GROUP BY time(1h)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(90m)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h, 15m)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h, -15m)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h, 75m)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1d)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1w)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(4h), jig_id
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY jig_id, time(4h)
SELECT mean(voltage), count(temperature) FROM tiger WHERE DAY GROUP BY time(4h)
SELECT count(level) FROM dense WHERE time >= '2024-01-30T22:13:20Z' AND time < '2024-01-30T22:23:20Z' GROUP BY time(47s)
SELECT count(level) FROM dense WHERE time > '2024-01-30T22:13:20Z' AND time <= '2024-01-30T22:15:20Z' GROUP BY time(30s)
SELECT count(voltage) FROM tiger WHERE time >= '2024-01-30T22:13:20Z' AND time < '2024-01-31T00:00:00Z' GROUP BY time(20m)
SELECT count(voltage) FROM tiger GROUP BY time(12h) FILL(none)
SELECT count(voltage) FROM tiger WHERE time < '2024-02-02' GROUP BY time(12h) FILL(none)
SELECT count(voltage) FROM tiger WHERE time < '2024-02-02' GROUP BY time(12h)
SELECT count(v) FROM ancient GROUP BY time(365d) fill(none)
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(3h) ORDER BY time DESC
SELECT count(voltage) FROM tiger WHERE DAY AND jig_id = 'J-01' GROUP BY time(6h), hostname
SELECT count(v) FROM recent WHERE time > now() - 10d GROUP BY time(30d) fill(none)
# fill
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(null)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(none)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(linear)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(0)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(-1.5)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h), jig_id fill(previous)
SELECT count(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(none)
SELECT count(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous)
SELECT count(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(linear)
SELECT count(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(7)
SELECT max(cycles) FROM tiger WHERE DAY GROUP BY time(1h) fill(linear)
SELECT max(cycles) FROM tiger WHERE DAY GROUP BY time(1h) fill(3.7)
SELECT last(note) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous)
SELECT last(note) FROM tiger WHERE DAY GROUP BY time(1h) fill(linear)
SELECT last(note) FROM tiger WHERE DAY GROUP BY time(1h) fill(5)
SELECT last(passed) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous)
SELECT last(passed) FROM tiger WHERE DAY GROUP BY time(1h) fill(1)
SELECT mean(temperature), max(cycles) FROM tiger WHERE DAY GROUP BY time(1h) fill(none)
SELECT mean(temperature), max(cycles) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous)
SELECT mean(temperature), max(cycles), last(passed) FROM tiger WHERE DAY GROUP BY time(1h) fill(linear)
SELECT mean(temperature), mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h) fill(100)
SELECT mean(temperature) + 1 FROM tiger WHERE DAY GROUP BY time(1h) fill(0)
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous) ORDER BY time DESC
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h) fill(linear) ORDER BY time DESC
SELECT mean(voltage) FROM tiger WHERE DAY fill(0)
SELECT mean(voltage) FROM tiger WHERE time >= '2024-01-29' AND time < '2024-01-31' GROUP BY time(6h) fill(0)
SELECT mean(voltage) FROM tiger WHERE time >= '2024-01-29' AND time < '2024-01-31' GROUP BY time(6h) fill(previous)
# order, limits
SELECT voltage FROM tiger ORDER BY time LIMIT 3
SELECT voltage FROM tiger ORDER BY time ASC LIMIT 3
SELECT voltage FROM tiger ORDER BY time DESC LIMIT 3
SELECT voltage FROM tiger ORDER BY time DESC LIMIT 3 OFFSET 2
SELECT voltage FROM tiger LIMIT 3 OFFSET 170
SELECT mean(voltage) FROM tiger GROUP BY jig_id SLIMIT 2
SELECT mean(voltage) FROM tiger GROUP BY jig_id SLIMIT 2 SOFFSET 1
SELECT voltage FROM tiger GROUP BY jig_id, hostname LIMIT 2 SLIMIT 3
SELECT voltage FROM tiger GROUP BY jig_id, hostname LIMIT 2 OFFSET 1 SLIMIT 3 SOFFSET 2
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h) LIMIT 4
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h) LIMIT 4 OFFSET 4
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h) ORDER BY time DESC LIMIT 4 OFFSET 4
SELECT mean(temperature) FROM tiger WHERE DAY GROUP BY time(1h), jig_id fill(none) LIMIT 2
SELECT voltage FROM tiger, koala LIMIT 2 OFFSET 2
SELECT mean(voltage) FROM tiger, koala GROUP BY jig_id SLIMIT 1
SELECT sum(v) FROM (SELECT difference(voltage) AS v FROM tiger GROUP BY jig_id) SLIMIT 3
SELECT v FROM (SELECT difference(voltage) AS v FROM tiger GROUP BY hostname, jig_id) GROUP BY /_id/ SLIMIT 2
SELECT v FROM (SELECT voltage AS v FROM tiger GROUP BY jig_id SLIMIT 1) LIMIT 5
SELECT sum(v) FROM (SELECT mean(voltage) AS v FROM tiger GROUP BY hostname, jig_id SLIMIT 1) GROUP BY jig_id SLIMIT 1
SELECT sum(v) FROM (SELECT mean(voltage) AS v FROM tiger GROUP BY hostname, jig_id) GROUP BY jig_id SLIMIT 1 SOFFSET 1
SELECT max(w) FROM (SELECT sum(v) AS w FROM (SELECT mean(voltage) AS v FROM tiger GROUP BY hostname, jig_id) GROUP BY hostname) SLIMIT 1
SELECT top(v, 2) FROM (SELECT mean(voltage) AS v FROM tiger GROUP BY hostname, jig_id) GROUP BY hostname SLIMIT 1
# fill(0) of a text in a series that has none
SELECT mean(voltage), last(note) FROM tiger WHERE DAY GROUP BY time(6h), hostname, jig_id fill(0)
SELECT mean(voltage), last(note), first(passed) FROM tiger WHERE DAY GROUP BY time(6h), hostname, jig_id fill(2.5)
SELECT mean(voltage), last(note), first(passed) FROM tiger WHERE DAY GROUP BY time(6h), * fill(7)
SELECT count(voltage), first(note) FROM tiger WHERE DAY AND note != 'x' GROUP BY time(6h), * fill(0)
SELECT count(n), last(b) FROM texts, verdicts WHERE SPAN GROUP BY time(5m) fill(2.5)
# differences that are not numbers, and beyond 64 bits
SELECT non_negative_difference(stddev(voltage)) FROM tiger WHERE DAY GROUP BY time(20m) fill(none)
SELECT non_negative_derivative(stddev(voltage), 1h) FROM tiger WHERE DAY GROUP BY time(20m) fill(0)
SELECT derivative(i) FROM integers
SELECT non_negative_derivative(i), difference(i) FROM integers ORDER BY time DESC
# a string field that only one of the measurements has
SELECT s, b FROM texts, verdicts WHERE s !~ /x/
SELECT b, v, s FROM /verdicts|texts|ancient/ WHERE s != 'plain'
# zero keeps its sign
SELECT round(f), ceil(f), floor(f) FROM floats
SELECT round(temperature / 100), ceil(temperature / 100) FROM tiger
# divisions of times before 1970
SELECT max(v) FROM ancient WHERE time >= '1962-03-01' AND time < '1970-01-08' GROUP BY time(30d, 7d) fill(linear)
SELECT elapsed(v, 1d) FROM ancient ORDER BY time DESC
# hours that are repeated or skipped
SELECT count(v) FROM clock WHERE AUTUMN GROUP BY time(2h) tz('Europe/Berlin')
SELECT mean(v), sum(v) FROM clock WHERE AUTUMN GROUP BY time(2h) fill(none) ORDER BY time DESC tz('Europe/Berlin')
SELECT median(v), max(v) FROM clock WHERE AUTUMN GROUP BY time(4h) fill(none) tz('Europe/Berlin')
SELECT count(v) FROM clock WHERE time >= '2024-10-27 02:00:00' AND time < '2024-10-27 03:00:00' tz('Europe/Berlin')
SELECT v FROM clock WHERE time >= '2024-03-31 02:30:00' AND time < '2024-03-31 05:00:00' tz('Europe/Berlin')
SELECT v FROM clock WHERE time >= '2024-03-30 20:00:00' AND time < '2024-03-31 00:30:00' tz('Atlantic/Azores')
# comparisons of comparisons
SELECT voltage FROM tiger WHERE (voltage > 3.5) = true LIMIT 3
SELECT voltage FROM tiger WHERE (passed = true) != (voltage > 3.3) LIMIT 3
SELECT voltage FROM tiger WHERE (jig_id = 'J-01') = true LIMIT 3
# functions: aggregates
SELECT count(voltage) FROM tiger
SELECT count(*) FROM tiger
SELECT count(*) FROM tiger WHERE DAY GROUP BY time(12h)
SELECT count(note), count(passed), count(temperature) FROM tiger
SELECT count(distinct(note)) FROM tiger
SELECT count(distinct note) FROM tiger
SELECT count(distinct(cycles)) FROM tiger GROUP BY jig_id
SELECT count(distinct(voltage)) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT count(/vol/) FROM tiger
SELECT distinct(cycles) FROM koala
SELECT distinct cycles FROM koala
SELECT distinct(note) FROM tiger
SELECT distinct(passed) FROM tiger
SELECT distinct(temperature) FROM tiger GROUP BY jig_id
SELECT distinct(temperature) FROM tiger WHERE DAY GROUP BY time(12h)
SELECT distinct("cycles") FROM tiger WHERE SPAN
SELECT distinct(temperature) AS d FROM tiger
SELECT mean(voltage) FROM tiger
SELECT mean(cycles) FROM tiger
SELECT mean(*) FROM tiger
SELECT mean(/vol/) FROM tiger
SELECT mean(voltage) AS m FROM tiger
SELECT mean(voltage), mean(cycles) AS c, mean(voltage) FROM tiger
SELECT mean("battery.voltage") FROM tiger
SELECT median(voltage) FROM tiger
SELECT median(cycles) FROM tiger
SELECT median(cycles) FROM tiger GROUP BY jig_id
SELECT median(temperature) FROM tiger
SELECT median(*) FROM koala
SELECT median(cycles) FROM tiger WHERE DAY GROUP BY time(3h)
SELECT mode(cycles) FROM tiger
SELECT mode(temperature) FROM tiger
SELECT mode(note) FROM tiger
SELECT mode(passed) FROM tiger
SELECT mode(/pass|curr/) FROM koala
SELECT mode(temperature) FROM tiger GROUP BY jig_id
SELECT spread(voltage), spread(cycles) FROM tiger
SELECT spread(*) FROM koala
SELECT spread(temperature) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT stddev(voltage) FROM tiger
SELECT stddev(cycles) FROM tiger
SELECT stddev(temperature) FROM tiger WHERE DAY GROUP BY time(3h)
SELECT stddev(*) FROM koala
SELECT sum(voltage) FROM tiger
SELECT sum(cycles) FROM tiger
SELECT sum(cycles), sum(temperature) FROM tiger GROUP BY jig_id
SELECT sum(*) FROM koala
SELECT sum(temperature) FROM tiger WHERE DAY GROUP BY time(3h)
SELECT sum(i) FROM integers WHERE n =~ /[0126]/
SELECT integral(level) FROM dense
SELECT integral(level, 1m) FROM dense
SELECT integral(voltage, 1h) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT integral(voltage, 1h) FROM tiger GROUP BY jig_id
SELECT integral(level) FROM dense WHERE time >= '2024-01-30T22:13:20Z' AND time < '2024-01-30T22:18:20Z' GROUP BY time(1m)
# functions: selectors
SELECT first(voltage) FROM tiger
SELECT first(note), first(temperature) FROM tiger
SELECT first(voltage) FROM tiger GROUP BY jig_id
SELECT first(voltage), jig_id FROM tiger
SELECT first(voltage), * FROM tiger
SELECT first(*) FROM tiger
SELECT first(voltage) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT last(voltage) FROM tiger
SELECT last(temperature), voltage, note FROM tiger
SELECT last(voltage) FROM tiger GROUP BY *
SELECT last(passed), jig_id, cycles FROM tiger WHERE DAY GROUP BY time(6h)
SELECT last(*) FROM koala
SELECT last(note) FROM tiger
SELECT max(voltage) FROM tiger
SELECT max(voltage), jig_id, note FROM tiger
SELECT max(cycles), voltage FROM tiger
SELECT max(cycles) FROM tiger GROUP BY jig_id
SELECT max(cycles), jig_id FROM tiger WHERE DAY GROUP BY time(6h)
SELECT max(passed) FROM tiger
SELECT max(*) FROM koala
SELECT min(voltage) FROM tiger
SELECT min(cycles), jig_id FROM tiger
SELECT min(passed) FROM tiger
SELECT min(voltage), max(voltage) FROM tiger
SELECT min(*) FROM koala
SELECT percentile(voltage, 50) FROM tiger
SELECT percentile(voltage, 5), percentile(voltage, 95) FROM tiger
SELECT percentile(voltage, 99.9) FROM tiger
SELECT percentile(voltage, 100) FROM tiger
SELECT percentile(voltage, 90), jig_id FROM tiger
SELECT percentile(voltage, 90) FROM tiger GROUP BY jig_id
SELECT percentile(temperature, 50) FROM tiger WHERE DAY GROUP BY time(3h)
SELECT percentile(*, 20) FROM koala
SELECT top(voltage, 3) FROM tiger
SELECT top(cycles, 5) FROM tiger
SELECT top(voltage, 3), jig_id, note FROM tiger
SELECT top(voltage, jig_id, 2) FROM tiger
SELECT top(voltage, jig_id, 10) FROM tiger
SELECT top(voltage, jig_id, hostname, 3) FROM tiger
SELECT top(voltage, 2) FROM tiger GROUP BY jig_id
SELECT top(voltage, 2) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT top(cycles, 300) FROM koala
SELECT bottom(voltage, 3) FROM tiger
SELECT bottom(cycles, 5) FROM tiger
SELECT bottom(voltage, jig_id, 2), hostname FROM tiger
SELECT bottom(voltage, 2) FROM tiger WHERE DAY GROUP BY time(12h)
SELECT bottom(temperature, 3) AS b FROM tiger
SELECT max(voltage) AS m, jig_id AS j FROM tiger
SELECT first(voltage), last(voltage), min(cycles), max(cycles) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT first(voltage) FROM tiger ORDER BY time DESC
SELECT last(voltage) FROM tiger ORDER BY time DESC
# functions: transformations
SELECT derivative(voltage) FROM tiger LIMIT 10
SELECT derivative(level) FROM dense LIMIT 10
SELECT derivative(level, 10s) FROM dense LIMIT 10
SELECT derivative(voltage, 1h) FROM tiger GROUP BY jig_id LIMIT 5
SELECT derivative(mean(voltage), 1h) FROM tiger WHERE DAY GROUP BY time(2h)
SELECT derivative(mean(voltage)) FROM tiger WHERE DAY GROUP BY time(2h)
SELECT derivative(mean(temperature), 1h) FROM tiger WHERE DAY GROUP BY time(1h) fill(0)
SELECT derivative(mean(temperature), 1h) FROM tiger WHERE DAY GROUP BY time(1h) fill(previous)
SELECT derivative(max(counter), 1m) FROM dense WHERE SPAN GROUP BY time(1m)
SELECT derivative(counter) FROM dense ORDER BY time DESC LIMIT 10
SELECT derivative(*) FROM koala LIMIT 5
SELECT non_negative_derivative(counter) FROM dense LIMIT 150
SELECT non_negative_derivative(max(counter), 10s) FROM dense WHERE SPAN GROUP BY time(30s)
SELECT difference(voltage) FROM tiger LIMIT 10
SELECT difference(counter) FROM dense LIMIT 10
SELECT difference(mean(voltage)) FROM tiger WHERE DAY GROUP BY time(2h)
SELECT difference(sum(cycles)) FROM tiger WHERE DAY GROUP BY time(2h), jig_id
SELECT difference(*) FROM koala LIMIT 5
SELECT non_negative_difference(counter) FROM dense LIMIT 150
SELECT non_negative_difference(max(counter)) FROM dense WHERE SPAN GROUP BY time(30s)
SELECT cumulative_sum(cycles) FROM tiger LIMIT 10
SELECT cumulative_sum(voltage) FROM tiger LIMIT 10
SELECT cumulative_sum(mean(voltage)) FROM tiger WHERE DAY GROUP BY time(2h)
SELECT cumulative_sum(count(voltage)) FROM tiger WHERE DAY GROUP BY time(2h)
SELECT cumulative_sum(count(temperature)) FROM tiger WHERE DAY GROUP BY time(1h) fill(none)
SELECT moving_average(voltage, 3) FROM tiger LIMIT 10
SELECT moving_average(cycles, 2) FROM tiger LIMIT 10
SELECT moving_average(mean(voltage), 4) FROM tiger WHERE DAY GROUP BY time(1h)
SELECT moving_average(mean(temperature), 2) FROM tiger WHERE DAY GROUP BY time(1h)
SELECT elapsed(voltage) FROM tiger LIMIT 5
SELECT elapsed(voltage, 1s) FROM tiger LIMIT 5
SELECT elapsed(sparse, 1s) FROM dense LIMIT 5
SELECT elapsed(note, 1m) FROM tiger LIMIT 5
SELECT elapsed(level, 2s), difference(level) FROM dense LIMIT 5
SELECT difference(voltage), derivative(voltage) FROM tiger LIMIT 5
SELECT derivative(mean(voltage), 1h) AS d, difference(max(cycles)) FROM tiger WHERE DAY GROUP BY time(3h)
# functions: mathematics of later 1.x, which 1.6 knows in part
SELECT abs(current), sqrt(voltage) FROM koala LIMIT 4
SELECT round(mean(voltage)), floor(mean(voltage)), ceil(mean(voltage)) FROM tiger WHERE DAY GROUP BY time(6h)
SELECT pow(cycles, 2), ln(voltage), log2(voltage), log10(voltage), log(voltage, 3), exp(voltage) FROM tiger LIMIT 4
SELECT sin(voltage), cos(voltage), tan(voltage), atan(voltage), atan2(voltage, 2) FROM tiger LIMIT 4
# subqueries
SELECT mean(m) FROM (SELECT mean(voltage) AS m FROM tiger GROUP BY jig_id)
SELECT max(mean) FROM (SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(2h))
SELECT mean FROM (SELECT mean(voltage) FROM tiger GROUP BY jig_id)
SELECT mean, jig_id FROM (SELECT mean(voltage) FROM tiger GROUP BY jig_id)
SELECT sum(n) FROM (SELECT count(voltage) AS n FROM tiger WHERE DAY GROUP BY time(1h), jig_id) WHERE DAY GROUP BY time(6h)
SELECT sum(n) FROM (SELECT count(voltage) AS n FROM tiger GROUP BY jig_id, hostname) GROUP BY hostname
SELECT v FROM (SELECT voltage AS v FROM tiger WHERE SPAN)
SELECT v * 2 FROM (SELECT voltage AS v FROM tiger) WHERE SPAN
SELECT * FROM (SELECT voltage, cycles FROM tiger) WHERE SPAN
SELECT * FROM (SELECT voltage, jig_id FROM tiger) WHERE SPAN
SELECT v FROM (SELECT voltage AS v FROM tiger) WHERE v > 3.5
SELECT mean(d) FROM (SELECT derivative(level) AS d FROM dense)
SELECT max(d) FROM (SELECT difference(counter) AS d FROM dense GROUP BY half) GROUP BY half
SELECT count(voltage) FROM (SELECT voltage FROM tiger WHERE passed = false)
SELECT mean(x) FROM (SELECT first(voltage) - last(voltage) AS x FROM tiger GROUP BY jig_id)
SELECT min(m), max(m) FROM (SELECT mean(voltage) AS m FROM tiger, koala GROUP BY jig_id)
SELECT sum(c) / sum(n) FROM (SELECT sum(cycles) AS c, count(cycles) AS n FROM tiger GROUP BY jig_id)
SELECT last(m) FROM (SELECT max(m) AS m FROM (SELECT mean(voltage) AS m FROM tiger WHERE DAY GROUP BY time(1h), jig_id) GROUP BY jig_id)
SELECT m FROM (SELECT mean(voltage) AS m FROM tiger WHERE DAY GROUP BY time(6h)), (SELECT mean(voltage) AS m FROM koala WHERE DAY GROUP BY time(6h))
SELECT top(m, 2) FROM (SELECT mean(voltage) AS m FROM tiger GROUP BY jig_id)
SELECT top(m, jig_id, 2) FROM (SELECT mean(voltage) AS m FROM tiger GROUP BY jig_id)
SELECT mean(v) FROM (SELECT voltage AS v FROM tiger) WHERE DAY GROUP BY time(6h), jig_id fill(0)
SELECT moving_average(m, 2) FROM (SELECT mean(voltage) AS m FROM tiger WHERE DAY GROUP BY time(3h))
# time zones
SELECT count(v) FROM clock WHERE BERLIN GROUP BY time(1d) tz('Europe/Berlin')
SELECT count(v) FROM clock WHERE AUTUMN GROUP BY time(1d) tz('Europe/Berlin')
SELECT mean(v) FROM clock WHERE BERLIN GROUP BY time(6h) tz('Europe/Berlin')
SELECT mean(v) FROM clock WHERE AUTUMN GROUP BY time(6h) tz('Europe/Berlin')
SELECT mean(v) FROM clock WHERE BERLIN GROUP BY time(1h) fill(none) tz('Europe/Berlin')
SELECT mean(v) FROM clock WHERE AUTUMN GROUP BY time(1h) fill(none) tz('Europe/Berlin')
SELECT count(v) FROM clock WHERE time >= '2024-03-31' AND time < '2024-04-01' tz('Europe/Berlin')
SELECT v FROM clock WHERE time >= '2024-03-31 01:00:00' AND time < '2024-03-31 04:00:00' tz('Europe/Berlin')
SELECT v FROM clock WHERE time >= '2024-10-27 01:00:00' AND time < '2024-10-27 04:00:00' tz('Europe/Berlin')
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1d) tz('Asia/Shanghai')
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1w) tz('America/New_York')
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(4h, 1h) tz('Asia/Kathmandu')
SELECT voltage FROM tiger LIMIT 2 tz('Asia/Shanghai')
SELECT count(v) FROM clock WHERE time >= '2024-03-30' AND time < '2024-04-02' GROUP BY time(1d) fill(0) tz('Europe/Berlin')
SELECT count(v) FROM clock WHERE BERLIN GROUP BY time(2d) tz('Europe/Berlin')
# several statements; spelling
SELECT count(voltage) FROM tiger; SELECT count(voltage) FROM koala
SELECT count(voltage) FROM tiger; SELECT count(voltage) FROM nowhere; SELECT max(cycles) FROM koala
SELECT count(voltage) FROM tiger;
SELECT mean(voltage)FROM tiger WHERE jig_id='J-01'AND cycles>3
SELECT MEAN(voltage) AS Mean FROM tiger
SHOW MEASUREMENTS; SELECT count(voltage) FROM tiger
# show
SHOW DATABASES
show databases
SHOW RETENTION POLICIES
SHOW RETENTION POLICIES ON factory_logs
SHOW RETENTION POLICIES ON "factory_logs"
SHOW MEASUREMENTS
SHOW MEASUREMENTS ON factory_logs
SHOW MEASUREMENTS LIMIT 3
SHOW MEASUREMENTS LIMIT 3 OFFSET 2
SHOW MEASUREMENTS WITH MEASUREMENT = tiger
SHOW MEASUREMENTS WITH MEASUREMENT = "odd it's"
SHOW MEASUREMENTS WITH MEASUREMENT =~ /odd/
SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)TIG/ LIMIT 100
SHOW MEASUREMENTS WHERE jig_id = 'J-01'
SHOW MEASUREMENTS WHERE jig_id =~ /J/ AND hostname != ''
SHOW MEASUREMENTS WITH MEASUREMENT =~ /t/ WHERE hostname = 'CN-REG1'
SHOW TAG KEYS
SHOW TAG KEYS ON factory_logs
SHOW TAG KEYS FROM tiger
SHOW TAG KEYS FROM tiger, koala
SHOW TAG KEYS FROM /odd/
SHOW TAG KEYS FROM tiger LIMIT 2
SHOW TAG KEYS FROM tiger LIMIT 2 OFFSET 1
SHOW TAG KEYS FROM koala WHERE jig_id = 'J-04'
SHOW TAG KEYS WHERE hostname = 'CN-REG1'
SHOW TAG KEYS FROM "odd with space"
SHOW TAG VALUES WITH KEY = jig_id
SHOW TAG VALUES WITH KEY = "jig_id"
SHOW TAG VALUES ON factory_logs WITH KEY = jig_id
SHOW TAG VALUES FROM tiger WITH KEY = jig_id
SHOW TAG VALUES FROM tiger WITH KEY = "hostname"
SHOW TAG VALUES FROM tiger WITH KEY != jig_id
SHOW TAG VALUES FROM tiger WITH KEY IN (jig_id, hostname)
SHOW TAG VALUES FROM tiger WITH KEY =~ /_id|host/
SHOW TAG VALUES FROM tiger WITH KEY !~ /_id/
SHOW TAG VALUES FROM koala WITH KEY = repair_id
SHOW TAG VALUES FROM tiger WITH KEY = product_imei
SHOW TAG VALUES FROM /tiger|koala/ WITH KEY = jig_id LIMIT 2
SHOW TAG VALUES FROM tiger WITH KEY = jig_id LIMIT 2 OFFSET 1
SHOW TAG VALUES FROM tiger WITH KEY = jig_id WHERE hostname = 'CN-REG1'
SHOW TAG VALUES FROM tiger WITH KEY = jig_id WHERE hostname =~ /REG/ AND jig_id != 'J-01'
SHOW TAG VALUES WITH KEY = k
SHOW TAG VALUES FROM "odd it's" WITH KEY = "it's"
SHOW TAG VALUES WITH KEY IN ("ünï", "an=equals")
SHOW FIELD KEYS
SHOW FIELD KEYS ON factory_logs
SHOW FIELD KEYS FROM tiger
SHOW FIELD KEYS FROM tiger, koala
SHOW FIELD KEYS FROM /odd/
SHOW FIELD KEYS FROM tiger LIMIT 2
SHOW FIELD KEYS FROM tiger LIMIT 2 OFFSET 3
SHOW SERIES
SHOW SERIES FROM tiger
SHOW SERIES FROM /odd/
SHOW SERIES FROM tiger WHERE jig_id = 'J-01'
SHOW SERIES WHERE hostname = 'CN-REG1'
SHOW SERIES FROM tiger LIMIT 3
SHOW SERIES FROM tiger LIMIT 3 OFFSET 3
SHOW SERIES FROM tiger WHERE hostname =~ /REG/ LIMIT 2
SELECT mean(voltage) FROM tiger GROUP BY time(0s)
SELECT voltage FROM tiger fill(0)
SELECT mean(voltage) FROM tiger WHERE DAY fill(linear)
SELECT f FROM floats WHERE f > 100000
select Count(voltage) from tiger where DAY group by TIME(12h) Fill(none) order BY time desc limit 1
SELECT v FROM (SELECT voltage AS v FROM tiger GROUP BY jig_id) WHERE jig_id = 'J-01' LIMIT 5
SELECT min(voltage), max(voltage) FROM tiger WHERE DAY GROUP BY time(12h), jig_id
SELECT count(voltage) FROM tiger -- to the end
# several subqueries
SELECT ok, n FROM (SELECT count(passed) AS ok FROM koala WHERE passed = true AND DAY GROUP BY time(12h)), (SELECT count(passed) AS n FROM tiger WHERE DAY GROUP BY time(12h))
# as Grafana writes them
SHOW measurements
SHOW MEASUREMENTS LIMIT 100
SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)tiger/ LIMIT 100
SHOW MEASUREMENTS WHERE "jig_id"::tag = 'J-01' LIMIT 100
SHOW RETENTION POLICIES on "factory_logs"
SHOW TAG KEYS FROM "koala" WHERE time > now() - 520w
SHOW TAG KEYS FROM "tiger" WHERE time > now() - 520w
SHOW TAG VALUES FROM "tiger" WITH KEY = "jig_id" WHERE time > now() - 520w
SHOW TAG VALUES FROM "autogen"."tiger" WITH KEY = "jig_id" WHERE "hostname" = 'CN-REG1' AND time > now() - 520w
SHOW TAG VALUES FROM /^(tiger|koala)$/ WITH KEY = "jig_id"
SHOW FIELD KEYS FROM "autogen"."tiger"
SHOW FIELD KEYS FROM /^(tiger|koala)$/
SELECT mean("voltage") FROM "tiger" WHERE ("jig_id"::tag = 'J-01') AND time >= 1706652800000ms and time <= 1706688800000ms GROUP BY time(1h) fill(null)
SELECT mean("voltage") FROM "autogen"."tiger" WHERE ("jig_id"::tag =~ /^(J-01|J-02)$/ AND "passed"::field = true) AND time >= 1706652800000ms and time <= 1706688800000ms GROUP BY time(30m), "jig_id"::tag fill(none) ORDER BY time DESC limit 5 slimit 1
SELECT count("voltage"), max("cycles") *2 AS "twice" FROM "tiger" WHERE time >= 1706652800000ms and time <= 1706688800000ms GROUP BY time(6h) fill(0) tz('Europe/Berlin')
SELECT "voltage"::field, "jig_id"::tag FROM "tiger" WHERE time >= 1706652800000ms and time <= 1706656400000ms ORDER BY time DESC
SELECT last("voltage"::field) FROM "tiger" WHERE time >= 1706652800000ms and time <= 1706756400000ms GROUP BY "jig_id"::tag
SHOW SERIES WHERE time > now() - 1h
""")

EMPTY = _statements(r"""
SELECT last(passed) FROM tiger WHERE time > * = '2024-01-30T22:37:30Z'
SELECT voltage FROM tiger WHERE -jig_id =~ /0[135]/
SELECT voltage FROM tiger WHERE voltage * 2 =~ /0[135]/
SELECT v FROM (SELECT voltage AS v FROM tiger GROUP BY *) SLIMIT 1 SOFFSET 1
SELECT sum(v) FROM (SELECT mean(cycles) AS v FROM tiger GROUP BY hostname, jig_id) SLIMIT 3 SOFFSET 1
SELECT voltage FROM tiger WHERE time < time = '2024-02-01T06:00:00Z'
SELECT voltage FROM tiger WHERE time < 'x' = '2024-02-01T06:00:00Z'
SELECT voltage FROM tiger WHERE time > tiger = '2024-02-01T06:00:00Z' AND note != ''
SELECT voltage FROM tiger WHERE time >1w= '2024-02-01T06:00:00Z'
SELECT voltage FROM tiger WHERE voltage > 1w = true
SELECT voltage FROM tiger WHERE (voltage > 3.5) = 'true'
SELECT voltage FROM nowhere
SELECT nothing FROM tiger
SELECT mean(nothing) FROM tiger
SELECT jig_id FROM tiger
SELECT * FROM nowhere
SELECT voltage FROM tiger WHERE jig_id = 'nothing'
SELECT voltage FROM tiger WHERE nothing = 'x'
SELECT voltage FROM tiger WHERE nothing > 3
SELECT voltage FROM tiger WHERE voltage & 1 = 1
SELECT voltage FROM tiger WHERE note & 1 != 1
SELECT voltage FROM tiger WHERE jig_id::field > cycles
SELECT voltage FROM tiger WHERE jig_id::field + 1 = 2
SELECT voltage FROM tiger WHERE voltage > 100
SELECT voltage FROM tiger WHERE voltage = 'text'
SELECT voltage FROM tiger WHERE jig_id > 3
SELECT voltage FROM tiger WHERE note > 3
SELECT voltage FROM tiger WHERE time > '2030-01-01'
SELECT count(voltage) FROM tiger WHERE time > '2030-01-01'
SELECT mean(voltage) FROM tiger WHERE time >= '2020-01-01' AND time < '2020-01-02' GROUP BY time(1h)
SELECT count(voltage) FROM tiger WHERE time >= '2020-01-01' AND time < '2020-01-02' GROUP BY time(1h) fill(0)
SELECT voltage FROM tiger WHERE time > '2024-02-01' AND time < '2024-01-01'
SELECT voltage FROM tiger WHERE time = '2024-01-30T22:13:20Z' AND time = '2024-01-30T22:13:21Z'
SELECT voltage FROM tiger OFFSET 100000
SELECT mean(voltage) FROM tiger GROUP BY jig_id SOFFSET 100
SELECT voltage FROM tiger WHERE false
SELECT derivative(voltage) FROM tiger LIMIT 1 OFFSET 100000
SELECT moving_average(voltage, 1000) FROM tiger
SELECT stddev(nothing) FROM tiger
SELECT v FROM (SELECT voltage AS v FROM tiger) WHERE v > 100
SHOW MEASUREMENTS WHERE jig_id = 'nothing'
SHOW MEASUREMENTS WITH MEASUREMENT = nowhere
SHOW TAG KEYS FROM nowhere
SHOW TAG VALUES FROM tiger WITH KEY = nothing
SHOW TAG VALUES FROM nowhere WITH KEY = jig_id
SHOW FIELD KEYS FROM nowhere
SHOW SERIES FROM nowhere
SELECT mean(voltage) FROM tiger GROUP BY jig_id SOFFSET 3
SELECT v FROM (SELECT voltage AS v FROM tiger) WHERE jig_id = 'J-01' LIMIT 5
; ;
SELECT voltage FROM tiger WHERE time > '2024-01-30' OR time < '2024-01-29'
SELECT mean(voltage) FROM tiger GROUP BY jig_id SOFFSET 2
SELECT percentile(voltage, 0.1) FROM tiger
""")

REFUSED = _statements(r"""
SELECT mean(voltage) FROM tiger GROUP BY time(1h, --25m) fill(2.5)
SELECT --
SELECT -- a
SELECT voltage FROM tiger WHERE --
SHOW SERIES FROM "autogen".
SELECT voltage FROM "autogen".
SELECT voltage FROM autogen.
SELECT top(cycles, jig_id, .2) FROM tiger
SELECT bottom(cycles, 2.00049) FROM tiger
SELECT jig_id::tag * 0.5 FROM tiger
SELECT jig_id::tag * 0.0015, jig_id::tag * 123456789012345678901234.5 FROM tiger
SELECT top(1.25, 2) FROM tiger
SELECT voltage FROM tiger WHERE pow(voltage, 2.5)
SELECT voltage FROM tiger /a/
SELECT voltage FROM tiger  /a/ LIMIT 1
SELECT voltage FROM tiger /* c */ LIMIT 1
SELECT voltage FROM tiger/a/
SELECT voltage FROM koala, tiger /a/
SELECT v FROM (SELECT difference(cycles) AS v FROM tiger /a/ )
SHOW TAG KEYS FROM tiger /a/
SELECT bottom(cycles, 4) FROM tiger GROUP BY time(12h
SELECT bottom(cycles, 4) FROM tiger GROUP BY time(12h, 1m
SELECT voltage FROM tiger WHERE (voltage = x1h
# syntax
SELECT
SELEC voltage FROM tiger
SELECT FROM tiger
SELECT voltage
SELECT voltage FROM
SELECT voltage FROM tiger WHERE
SELECT voltage FROM tiger WHERE jig_id
SELECT voltage FROM tiger GROUP
SELECT voltage FROM tiger GROUP BY
SELECT voltage FROM tiger LIMIT x
SELECT voltage FROM tiger LIMIT -1
SELECT voltage FROM tiger LIMIT 1.5
SELECT voltage FROM tiger ORDER BY voltage
SELECT voltage FROM tiger ORDER BY time, voltage
SELECT voltage FROM tiger SLIMIT
SELECT voltage FROM tiger extra
SELECT voltage, FROM tiger
SELECT voltage FROM tiger WHERE jig_id = 'open
SELECT voltage FROM "tiger
SELECT voltage FROM tiger WHERE jig_id =~ 'J-01'
SELECT voltage FROM tiger WHERE jig_id = /J-01/
SELECT voltage FROM tiger WHERE jig_id =~ /J-(/
SELECT voltage FROM tiger WHERE (jig_id = 'a'
SELECT voltage FROM tiger tz('Nowhere/City')
SELECT voltage FROM tiger tz(Europe/Berlin)
SELECT voltage FROM 'tiger'
SELECT voltage FROM tiger;; SELECT
SELECT count(voltage) FROM tiger; SELEC
SELECT ! FROM tiger
SELECT mean(voltage) FROM tiger GROUP BY time(1x)
SELECT mean(voltage) FROM tiger fill(sometimes)
SHOW
SHOW NOTHING
SHOW TAG
SHOW TAG VALUES
SHOW TAG VALUES FROM tiger
SHOW TAG VALUES FROM tiger WITH KEY
SHOW TAG VALUES FROM tiger WITH KEY > a
SHOW FIELD
SHOW RETENTION
SHOW MEASUREMENTS WITH MEASUREMENT
EXPLODE
CREATE DATABASE
DROP
# meaning
SELECT mean(voltage), cycles FROM tiger
SELECT voltage, mean(cycles) FROM tiger
SELECT first(voltage), max(cycles), jig_id FROM tiger
SELECT voltage FROM tiger GROUP BY time(1h)
SELECT mean(voltage) FROM tiger GROUP BY time(1h), time(2h)
SELECT mean(voltage) FROM tiger GROUP BY time()
SELECT mean(voltage) FROM tiger GROUP BY time(1h, 2h, 3h)
SELECT mean(voltage) FROM tiger GROUP BY time(voltage)
SELECT mean(voltage) FROM tiger GROUP BY mean(voltage)
SELECT mean() FROM tiger
SELECT mean(voltage, 2) FROM tiger
SELECT nonsense(voltage) FROM tiger
SELECT percentile(voltage) FROM tiger
SELECT percentile(voltage, 'a') FROM tiger
SELECT top(voltage) FROM tiger
SELECT top(voltage, 0) FROM tiger
SELECT top(voltage, jig_id) FROM tiger
SELECT bottom(voltage, -1) FROM tiger
SELECT moving_average(voltage) FROM tiger
SELECT moving_average(voltage, 1) FROM tiger
SELECT derivative(voltage, 0s) FROM tiger
SELECT derivative(voltage, 10) FROM tiger
SELECT derivative(mean(voltage)) FROM tiger
SELECT derivative(voltage) FROM tiger GROUP BY time(1h)
SELECT elapsed(voltage, 0s) FROM tiger
SELECT integral(voltage, 0s) FROM tiger
SELECT count(distinct) FROM tiger
SELECT distinct(voltage), cycles FROM tiger
SELECT distinct(voltage), mean(voltage) FROM tiger
SELECT top(voltage, 1), bottom(voltage, 1) FROM tiger
SELECT 1 FROM tiger
SELECT time FROM tiger
SELECT mean(note) FROM tiger
SELECT sum(passed) FROM tiger
SELECT max(note) FROM tiger
SELECT derivative(note) FROM tiger
SELECT stddev(passed) FROM tiger
SELECT percentile(note, 50) FROM tiger
SELECT note + 1 FROM tiger
SELECT passed * 2 FROM tiger
SELECT voltage & 1 FROM tiger
SELECT mean(voltage) FROM tiger WHERE time > 'yesterday'
SELECT voltage FROM tiger WHERE time > '2024-13-01'
SELECT voltage FROM tiger WHERE time =~ /2024/
SELECT voltage FROM tiger WHERE time > voltage
SELECT mean(voltage) FROM tiger WHERE mean(voltage) > 3
SELECT * FROM (SELECT mean(voltage), cycles FROM tiger)
SELECT mean(*), cycles FROM tiger
SELECT count(voltage) FROM tiger GROUP BY time(1h) WHERE jig_id = 'a'
SELECT voltage FROM tiger WHERE jig_id = $jig
SHOW TAG VALUES WITH KEY = jig_id WHERE voltage =
SELECT mean(mean(voltage)) FROM tiger
SELECT count(mean(voltage)) FROM tiger
SELECT first(max(voltage)) FROM tiger
SELECT sum(voltage AS x) FROM tiger
SELECT elapsed(mean(voltage)) FROM tiger
SELECT cumulative_sum(mean(voltage)) FROM tiger
SELECT f FROM floats WHERE f > 1e5
SELECT b FROM verdicts WHERE b
SELECT mean(voltage) FROM tiger WHERE DAY GROUP BY time(1h, '2024-01-31T00:20:00Z')
SELECT min(voltage), max(voltage), jig_id FROM tiger WHERE DAY GROUP BY time(12h), jig_id
SELECT count(distinct) FROM (SELECT distinct(cycles) FROM tiger)
select Count(voltage) from tiger where DAY group by TIME(12h) Fill(NONE) order BY time desc limit 1
SELECT  voltage -- to the end of the line
SHOW TAG KEYS WITH KEY = jig_id
SHOW TAG KEYS WITH KEY IN (jig_id, hostname)
SHOW TAG KEYS WITH KEY =~ /_id/
SHOW MEASUREMENTS WHERE time > now() - 1h
SHOW FIELD KEYS WHERE time > now() - 1h
SELECT count(voltage) FROM tiger; SELECT mean(note) FROM tiger
""")
