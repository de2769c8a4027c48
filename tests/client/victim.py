"""The script of a jig that a test kills: it sends one log after the other and prints each number, until it dies."""

import itertools
import random
import time
from multiprocessing.connection import Connection

from factory_logs.client import Client, ClientSettings

APP = "kill_test"


def settings(rng: random.Random) -> ClientSettings:
    """The time-outs are short, so that much happens in the fraction of a second that a victim lives."""
    return ClientSettings(
        max_batch_records=rng.choice((1, 5, 50)),
        linger_seconds=rng.choice((0.0, 0.01)),
        poll_seconds=0.05,
        backoff_base_seconds=0.005,
        backoff_cap_seconds=0.05,
        connect_timeout_seconds=1.0,
        response_timeout_seconds=2.0,
        fsync=rng.choice(("full", "normal")),
    )


def send_until_killed(spool: str, url: str, token: str, name: str, seed: int, reported: Connection) -> None:
    """`reported` receives the number of each log whose send() has returned."""
    rng = random.Random(seed)
    client = Client(url, token, spool=spool, settings=settings(rng))
    for number in itertools.count():
        client.send(APP, fields={"victim": name, "number": number})
        reported.send(number)
        if rng.random() < 0.1:
            time.sleep(rng.random() * 0.02)
