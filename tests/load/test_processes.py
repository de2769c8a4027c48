"""The processes of a load test share its devices, and none survives the command."""

import multiprocessing

import pytest

from factory_logs.load import processes
from factory_logs.load.devices import Load, LoadError, count_stored
from factory_logs.load.processes import run_load
from factory_logs.load.statistics import LoadCounts
from tests.client.servers import Server

pytestmark = pytest.mark.slow


def test_two_processes_share_the_devices_and_report_while_they_run(shared_server: Server, token: str) -> None:
    load = Load(shared_server.url, token, 3, 1, 2.0, 60.0)
    shown: list[tuple[int, float]] = []
    counts, elapsed = run_load(load, 2, lambda counts, seconds: shown.append((counts.stored, seconds)))
    assert elapsed >= 2
    assert shown == sorted(shown)
    assert 0 < shown[0][1] <= elapsed
    with load.client() as http:
        assert counts.stored == count_stored(load, http) > 0
        response = http.get("v1/factory_logs/facets", params={"field": "tags__jig_id"})
    values = response.json()["facets"]["tags__jig_id"]["values"]
    assert {value["value"] for value in values} == {"J-000", "J-001", "J-002"}
    assert multiprocessing.active_children() == []


def test_an_error_of_a_process_ends_all(shared_server: Server) -> None:
    with pytest.raises(LoadError, match="the service refuses the token"):
        run_load(Load(shared_server.url, "x" * 64, 2, 1, 600.0, 60.0), 2, lambda counts, seconds: None)
    assert multiprocessing.active_children() == []


def test_a_process_that_fails_after_the_command_has_ended_does_so_without_a_traceback(shared_server: Server) -> None:
    context = multiprocessing.get_context("spawn")
    command, pipe = context.Pipe()
    load = Load(shared_server.url, "x" * 64, 1, 1, 600.0, 60.0)
    process = context.Process(target=processes._run_group, args=(load, range(1), pipe))
    process.start()
    pipe.close()
    command.recv()
    command.send(None)
    command.close()
    process.join(60)
    assert process.exitcode == 0


def test_an_interrupt_ends_all_processes(shared_server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(counts: LoadCounts, seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "REPORT_SECONDS", 0.01)
    with pytest.raises(KeyboardInterrupt):
        run_load(Load(shared_server.url, token, 2, 1, 600.0, 60.0), 2, interrupt)
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_is_an_error(shared_server: Server, token: str) -> None:
    def kill(counts: LoadCounts, seconds: float) -> None:
        multiprocessing.active_children()[0].kill()

    with pytest.raises(LoadError, match="has ended too early"):
        run_load(Load(shared_server.url, token, 2, 1, 600.0, 60.0), 2, kill)
    assert multiprocessing.active_children() == []
