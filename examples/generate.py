"""Write the example data: repairs.csv, then factory_logs.ndjson, whose `repair_id` refers to the repairs.

Three days in the factories and repair centres of a solar company, up to 2024-01-31. The data contains these findings:
jig J-07 measures `output_12v` lower and lower on the last day and fails good units, which pass on another jig; units in
repair are tested several times, and some of them have a weak battery. Half of the koala units of batch B-3137 have a
USB port with too low a voltage. Some repaired units return to the production line and are tested once more.

The same seed gives the same bytes. Standard library only:

    python examples/generate.py [--seed 20240131] [--logs 3000] [--out DIRECTORY]
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

Log = dict[str, Any]

FIRST_DAY = datetime(2024, 1, 29)
LAST_DAY = datetime(2024, 1, 31)
END = LAST_DAY + timedelta(days=1)
DAYS = (END - FIRST_DAY).days
REPAIRS = 150

DRIFTING_JIG = "J-07"
BATCH_UNITS = 120
"""Units in a row of one app; a batch has a number of its own."""
BAD_BATCH = "B-3137"
BAD_USB = (4.6, 0.05)
DRIFT_OVER_THE_DAY = -0.95

LIMITS = {"input_pv": (11.5, 13.0), "output_usb": (4.75, 5.25), "output_12v": (11.4, 12.6)}
USUAL = {"input_pv": (12.3, 0.12), "output_usb": (5.06, 0.03), "output_12v": (12.03, 0.08)}
LEAST_BATTERY_VOLTAGE = 3.1


@dataclass(frozen=True)
class App:
    """A program that sends logs, and the stations that run it."""

    name: str
    share: float
    jigs: tuple[str, ...]
    site: str
    users: tuple[str, ...]
    version: str
    shift: tuple[int, int]
    serial_prefix: str


CN_USERS = ("li.wei", "zhang.min", "chen.jie", "wang.fang")
KE_USERS = ("a.otieno", "j.wanjiru", "p.mutua")
CN_SHIFT = (0, 14)
"""Hours in UTC: 08:00 to 22:00 in the factory."""

TIGER = App(
    "tiger_test_jig_production",
    0.38,
    tuple(f"J-{n:02}" for n in range(1, 9)),
    "CN-REG",
    CN_USERS,
    "2.4.1",
    CN_SHIFT,
    "TG",
)
KOALA = App(
    "koala_test_jig_production", 0.22, ("J-11", "J-12", "J-13", "J-14"), "CN-REG", CN_USERS, "1.9.0", CN_SHIFT, "KO"
)
BPOWER20 = App(
    "bpower20_registration_production", 0.16, ("J-31", "J-32"), "CN-REG", CN_USERS, "3.1.2", CN_SHIFT, "B20-"
)
BPOWER50 = App("bpower50_registration_production", 0.11, ("J-33",), "CN-REG", CN_USERS, "3.1.2", CN_SHIFT, "B50-")
REPAIR = App("tiger_test_jig_repair", 0.13, ("J-21", "J-22", "J-23"), "KE-REP", KE_USERS, "2.3.7", (5, 15), "TG")


@dataclass(frozen=True)
class Repair:
    repair_id: int
    product_imei: str
    arrival: datetime
    refurbishment: datetime | None
    battery_capacity: int | None
    process: str
    pending_status: str
    outcome: str


def imei(number: int) -> str:
    """Return the IMEI of a number below a million: 15 digits of one type allocation, with the Luhn check digit."""
    body = f"35209900{number:06}"
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(body))
    return f"{body}{-sum(d // 10 + d % 10 for d in doubled) % 10}"


def whole(rng: Random, low: int, high: int) -> int:
    """Return a random number from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def one_of(rng: Random, choices: tuple[str, ...]) -> str:
    return choices[whole(rng, 0, len(choices) - 1)]


def stamp(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def make_repairs(rng: Random) -> list[Repair]:
    """Return repairs in order of arrival, over the 45 days before the last day; about half are still open."""
    minutes = sorted(whole(rng, 0, 45 * 24 * 60 - 1) for _ in range(REPAIRS))
    repairs: list[Repair] = []
    for repair_id, minute in enumerate(minutes, start=1):
        arrival = LAST_DAY - timedelta(days=45) + timedelta(minutes=minute)
        refurbished = arrival + timedelta(days=whole(rng, 8, 50), minutes=whole(rng, 0, 600))
        luck = rng.random()
        if luck < 0.66:
            process, outcome = (
                "Repair and Return",
                one_of(rng, ("Battery replaced", "Charging circuit repaired", "No fault found")),
            )
        elif luck < 0.82:
            process, outcome = "Replaced", "New unit sent"
        elif luck < 0.92:
            process, outcome = "Repossessed", "Returned to stock"
        else:
            process, outcome = "Broken on Arrival", "Scrapped"
        is_open = refurbished >= END
        pending = one_of(rng, ("Waiting for parts", "Waiting for test", "Waiting for customer")) if is_open else ""
        capacity = whole(rng, 2350, 3150) if not is_open or rng.random() < 0.3 else None
        # Units may return: every thirtieth repair is of a unit that was here 25 repairs ago.
        product = repairs[-25].product_imei if repair_id % 30 == 0 else imei(40_000 + 37 * repair_id)
        repairs.append(
            Repair(
                repair_id,
                product,
                arrival,
                None if is_open else refurbished,
                capacity,
                process,
                pending,
                "" if is_open else outcome,
            )
        )
    return repairs


def moment_in_shift(rng: Random, app: App) -> datetime:
    start, end = app.shift
    milliseconds = whole(rng, 0, (end - start) * 3_600_000 - 1)
    return FIRST_DAY + timedelta(days=whole(rng, 0, DAYS - 1), hours=start, milliseconds=milliseconds)


def make_log(
    rng: Random,
    app: App,
    product: str,
    jig: str,
    moment: datetime,
    fields: Log,
    repair_id: int | None = None,
    batch_id: str | None = None,
) -> Log:
    number = int(jig.removeprefix("J-"))
    log = {
        "app_name": app.name,
        "product_imei": product,
        "repair_id": repair_id,
        "timestamp": stamp(moment),
        "tags": {
            "jig_id": jig,
            "machine_id": f"M-{1000 + number}",
            "hostname": f"{app.site}{(number + 1) // 2 - (10 if app is REPAIR else 0):02}",
            "user": one_of(rng, app.users),
            "software_version": app.version,
            "serial_number": f"{app.serial_prefix}{product[7:14]}",
        },
        "fields": fields,
    }
    if batch_id is not None:
        log["tags"]["batch_id"] = batch_id
    return log


def batch(number: int) -> str:
    """Return the batch of a unit from the production line."""
    return f"B-{number // BATCH_UNITS % 10_000:04}"


def drift(app: App, jig: str, moment: datetime) -> float:
    """Return the error of the jig's `output_12v`: only J-07 on the last day has one, and it grows with every hour."""
    if app is not TIGER or jig != DRIFTING_JIG or moment < LAST_DAY:
        return 0.0
    return DRIFT_OVER_THE_DAY * ((moment - LAST_DAY) / timedelta(hours=app.shift[1] - app.shift[0]))


def measurements(
    rng: Random, *, faulty: bool, drift_12v: float = 0.0, battery: float = 3.29, bad_usb: bool = False
) -> Log:
    """Return the measurements of a test jig; `passed` follows from the values."""
    voltage = round(rng.gauss(battery, 0.025), 2)
    fault = one_of(rng, tuple(LIMITS)) if faulty else None
    fields: Log = {"passed": voltage >= LEAST_BATTERY_VOLTAGE}
    for name, (low, high) in LIMITS.items():
        value = rng.gauss(*USUAL[name]) + (drift_12v if name == "output_12v" else 0.0)
        if bad_usb and name == "output_usb":
            value = rng.gauss(*BAD_USB)
        if name == fault:
            value = low * (0.35 + 0.6 * rng.random())
        value = round(value, 2)
        good = low <= value <= high
        fields[name] = {"value": value, "pass": good}
        fields["passed"] = fields["passed"] and good
    fields["battery"] = {"voltage": voltage}
    return fields


def registration(rng: Random, *, faulty: bool) -> Log:
    """Return the fields of a registration station; `sim_iccid` is a string, because its 19 digits exceed a float."""
    fields: Log = {
        "passed": not faulty,
        "firmware": one_of(rng, ("5.2.0", "5.2.1", "5.2.1")),
        "sim_iccid": f"8986{whole(rng, 0, 10**15 - 1):015}",
    }
    if faulty:
        fields["error"] = one_of(rng, ("SIM not registered", "No answer from the modem", "Firmware too old"))
    return fields


def production_tests(rng: Random, app: App, numbers: Iterator[int]) -> Iterator[Log]:
    """Yield one test for each unit from the line; most failed units are retested within two hours by another jig."""
    for number in numbers:
        product, jig, moment = imei(number), one_of(rng, app.jigs), moment_in_shift(rng, app)
        bad_usb = app is KOALA and batch(number) == BAD_BATCH and number % 2 == 0
        fields = measurements(rng, faulty=rng.random() < 0.028, drift_12v=drift(app, jig, moment), bad_usb=bad_usb)
        yield make_log(rng, app, product, jig, moment, fields, batch_id=batch(number))
        if not fields["passed"] and rng.random() < 0.7:
            again = moment + timedelta(minutes=whole(rng, 15, 120), milliseconds=whole(rng, 0, 59_999))
            other = one_of(rng, tuple(j for j in app.jigs if j not in (jig, DRIFTING_JIG)))
            fields = measurements(rng, faulty=rng.random() < 0.15, bad_usb=bad_usb)
            yield make_log(rng, app, product, other, again, fields, batch_id=batch(number))


def registrations(rng: Random, app: App, numbers: Iterator[int]) -> Iterator[Log]:
    for number in numbers:
        product, jig, moment = imei(number), one_of(rng, app.jigs), moment_in_shift(rng, app)
        fields = registration(rng, faulty=rng.random() < 0.03)
        yield make_log(rng, app, product, jig, moment, fields)
        if not fields["passed"] and rng.random() < 0.7:
            again = moment + timedelta(minutes=whole(rng, 5, 60), milliseconds=whole(rng, 0, 59_999))
            yield make_log(rng, app, product, jig, again, registration(rng, faulty=False))


def repair_tests(rng: Random, repairs: list[Repair]) -> Iterator[Log]:
    """Yield several tests for each unit in repair: the first on arrival, which often fails, the others after the
    work."""
    while True:
        tested = False
        for repair in repairs:
            moments = sorted(moment_in_shift(rng, REPAIR) for _ in range(whole(rng, 3, 6)))
            here = [m for m in moments if repair.arrival <= m < (repair.refurbishment or END)]
            weak = rng.random() < 0.3
            for visit, moment in enumerate(here):
                fields = measurements(
                    rng,
                    faulty=rng.random() < (0.25 if visit == 0 else 0.04),
                    battery=3.17 if weak and visit < 2 else 3.26,
                )
                tested = True
                yield make_log(
                    rng, REPAIR, repair.product_imei, one_of(rng, REPAIR.jigs), moment, fields, repair.repair_id
                )
        if not tested:
            raise ValueError("no repair is open in these three days")


def returns(rng: Random, repairs: list[Repair]) -> Iterator[Log]:
    """Yield the final test of some repaired units that left the repair centre in these days."""
    for repair in repairs:
        left = repair.refurbishment
        if (
            left is not None
            and left >= FIRST_DAY
            and left + timedelta(hours=3) < END
            and repair.process == "Repair and Return"
        ):
            jig = one_of(rng, tuple(j for j in TIGER.jigs if j != DRIFTING_JIG))
            moment = left + timedelta(minutes=whole(rng, 30, 150))
            yield make_log(rng, TIGER, repair.product_imei, jig, moment, measurements(rng, faulty=rng.random() < 0.2))


def make_logs(rng: Random, repairs: list[Repair], count: int) -> list[Log]:
    """Return `count` logs in order of time."""
    makers: list[tuple[App, Callable[[int], Iterator[Log]]]] = [
        (TIGER, lambda first: production_tests(rng, TIGER, iter(range(first, 1_000_000)))),
        (KOALA, lambda first: production_tests(rng, KOALA, iter(range(first, 1_000_000)))),
        (BPOWER20, lambda first: registrations(rng, BPOWER20, iter(range(first, 1_000_000)))),
        (BPOWER50, lambda first: registrations(rng, BPOWER50, iter(range(first, 1_000_000)))),
    ]
    logs: list[Log] = []
    for place, (app, make) in enumerate(makers):
        source = make(176_148 + place * 200_000)
        logs += [next(source) for _ in range(int(count * app.share))]
    logs += returns(rng, repairs)
    rest = repair_tests(rng, repairs)
    logs += [next(rest) for _ in range(count - len(logs))]
    return sorted(logs, key=lambda log: (log["timestamp"], log["app_name"], log["product_imei"]))


def write_repairs(path: Path, repairs: list[Repair]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            (
                "repair_id",
                "product_imei",
                "arrival_date",
                "refurbishment_date",
                "measured_battery_capacity",
                "process",
                "pending_status",
                "outcome",
            )
        )
        for repair in repairs:
            writer.writerow(
                (
                    repair.repair_id,
                    repair.product_imei,
                    stamp(repair.arrival),
                    stamp(repair.refurbishment) if repair.refurbishment else "",
                    "" if repair.battery_capacity is None else repair.battery_capacity,
                    repair.process,
                    repair.pending_status,
                    repair.outcome,
                )
            )


def write_logs(path: Path, logs: list[Log]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for log in logs:
            file.write(json.dumps(log, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write repairs.csv and factory_logs.ndjson.")
    parser.add_argument("--seed", type=int, default=20240131)
    parser.add_argument("--logs", type=int, default=3000, help="how many logs (default: 3000)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to (default: beside the script)")
    options = parser.parse_args()
    rng = Random(options.seed)
    repairs = make_repairs(rng)
    logs = make_logs(rng, repairs, options.logs)
    write_repairs(options.out / "repairs.csv", repairs)
    write_logs(options.out / "factory_logs.ndjson", logs)
    print(f"{len(repairs)} repairs and {len(logs)} logs in {options.out}")


if __name__ == "__main__":
    main()
