"""`factory-logs retention` lists expired logs; `--delete` deletes them, and nothing else."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from factory_logs.retention.archive import Archive, open_archive
from tests import forked
from tests.cli.conftest import Query, Run
from tests.cli.factories import LOG, lines

AGES = (1, 399, 401, 800)


@pytest.fixture
def stored(run: Run, tmp_path: Path) -> list[str]:
    """Store logs of several ages in days, of two apps each; return their timestamps."""
    moments = [(datetime.now(UTC) - timedelta(days=age)).strftime("%Y-%m-%dT%H:%M:%SZ") for age in AGES]
    logs = [LOG | {"app_name": app, "timestamp": moment} for app in ("koala", "tiger") for moment in moments]
    assert run("import", "-", "--format", "ndjson", stdin=lines(*logs)).exit_code == 0
    return [moment[:10] for moment in moments]


def ages(query: Query) -> list[int]:
    return [row["id"] for row in query("select factory_log_id as id from factory_logs order by 1")]


def test_without_delete_it_lists_the_expired_logs(run: Run, query: Query, stored: list[str]) -> None:
    shown = run("retention", "--older-than", "400d")
    assert shown.exit_code == 0, shown.stderr
    *apps, total = shown.stdout.splitlines()
    assert apps == [f"{app}: 2 logs from {stored[3]} to {stored[2]}" for app in ("koala", "tiger")]
    assert total.startswith("4 logs from before ")
    assert total.endswith(" would be deleted")
    assert shown.stderr == "Nothing was deleted; --delete does it.\n"
    assert len(ages(query)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, 4, 5000])
def test_with_delete_only_the_expired_logs_are_removed(
    run: Run, query: Query, stored: list[str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("factory_logs.retention.removal.BATCH_LOGS", batch)
    deleted = run("retention", "--older-than", "400d", "--delete")
    assert (deleted.exit_code, deleted.stderr) == (0, "")
    assert deleted.stdout.splitlines()[-1].startswith("Deleted 4 logs from before ")
    assert ages(query) == [1, 2, 5, 6]
    assert query("select removed from retention_runs") == [{"removed": 4}]
    again = run("retention", "--older-than", "58w", "--delete")
    assert again.stdout.startswith("Deleted 0 logs from before ")
    assert len(query("select from retention_runs")) == 1


@pytest.mark.parametrize("age", ["400", "0d", "-1d", "9999999w", "never"])
def test_an_invalid_age_deletes_nothing(run: Run, query: Query, stored: list[str], age: str) -> None:
    refused = run("retention", f"--older-than={age}", "--delete")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert len(ages(query)) == 8


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Return a file with a policy for each app, of which one writes an archive."""
    file = tmp_path / "retention.toml"
    tables = [
        f"""[[policy]]
name = "{app}"
older_than = "{age}"
q = '''{{"filters": [{{"name": "app_name", "op": "==", "val": "{app}"}}]}}'''
"""
        for app, age in {"koala": "400d", "tiger": "500d"}.items()
    ]
    file.write_text("\n".join(tables) + 'archive = "archives"\n')
    return file


def test_policies_show_what_each_would_remove(
    run: Run, query: Query, stored: list[str], policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("retention", "--policies", policies, "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        'koala: logs older than 400d that {"filters": [{"name": "app_name", "op": "==", "val": "koala"}]} selects',
        f"  koala: 2 logs from {stored[3]} to {stored[2]}",
        "  2 logs would be deleted",
        'tiger: logs older than 500d that {"filters": [{"name": "app_name", "op": "==", "val": "tiger"}]} selects, '
        f"archived in {policies.parent}/archives",
        f"  tiger: 1 log from {stored[3]} to {stored[3]}",
        "  1 log would be deleted",
    ]
    assert shown.stderr == "Nothing was deleted; --delete does it.\n"
    assert len(ages(query)) == 8
    monkeypatch.setenv("FACTORY_LOGS_RETENTION_POLICIES", str(policies))
    assert run("retention", "--dry-run").stdout == shown.stdout
    assert run("retention").stdout == shown.stdout


def test_policies_are_applied_at_once_with_delete(run: Run, query: Query, stored: list[str], policies: Path) -> None:
    deleted = run("retention", "--policies", policies, "--delete")
    assert (deleted.exit_code, deleted.stderr) == (0, "")
    (folder,) = (policies.parent / "archives").iterdir()
    assert [line for line in deleted.stdout.splitlines() if line.startswith(("  Arch", "  Del"))] == [
        "  Deleted 2 logs", f"  Archived 1 log in {folder}", "  Deleted 1 log",
    ]  # fmt: skip
    assert ages(query) == [1, 2, 5, 6, 7]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "give --older-than AGE, or --policies FILE, or set FACTORY_LOGS_RETENTION_POLICIES"),
        (("--older-than", "1d", "--policies", "x"), "give either --older-than or --policies"),
        (("--older-than", "1d", "--delete", "--dry-run"), "give either --delete or --dry-run"),
        (("--q", "{}", "--policies", "x"), "--q and --archive need --older-than"),
        (("--policies", "nowhere.toml", "--delete"), "nowhere.toml: No such file or directory"),
    ],
)
def test_options_that_contradict_each_other_delete_nothing(
    run: Run, query: Query, stored: list[str], options: tuple[str, ...], reason: str
) -> None:
    refused = run("retention", *options)
    assert (refused.exit_code, refused.stderr) == (1, f"error: {reason}\n")
    assert len(ages(query)) == 8


def test_a_policy_that_is_not_valid_is_named_and_nothing_is_deleted(
    run: Run, query: Query, stored: list[str], policies: Path
) -> None:
    policies.write_text(policies.read_text().replace("500d", "500"))
    refused = run("retention", "--policies", policies, "--delete")
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"error: {policies} is not valid\n"
        "  policy 'tiger': older_than: '500' is not a duration such as 30s, 15m, 12h, 90d, 2w\n",
    )
    assert len(ages(query)) == 8


@pytest.mark.slow
def test_serve_does_not_start_with_a_policy_that_is_not_valid(migrated_url: str, policies: Path) -> None:
    policies.write_text(policies.read_text().replace("older_than", "age"))
    settings = {"FACTORY_LOGS_RETENTION_POLICIES": str(policies), "FACTORY_LOGS_DATABASE_URL": migrated_url}
    refused = forked.run("serve", "--port", "0", environment=os.environ | settings)
    assert refused.returncode == 1
    assert "policy 'koala': older_than: Field required" in refused.stderr
    assert "policy 'tiger': age: Extra inputs are not permitted" in refused.stderr


@pytest.mark.parametrize(
    ("variable", "value"), [("TIME", "24:00"), ("TIME", "3"), ("TZ", "Mars/Olympus"), ("TZ", "../etc/passwd")]
)
def test_an_hour_or_a_time_zone_that_does_not_exist_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"FACTORY_LOGS_RETENTION_{variable}", value)
    refused = run("retention", "--older-than", "1d")
    assert refused.exit_code == 1
    assert f"FACTORY_LOGS_RETENTION_{variable}: " in refused.stderr


BY_APP = '{"filters": [{"name": "app_name", "op": "==", "val": "tiger"}]}'
BY_PATH = (
    '{"filters": [{"or": [{"name": "fields__v", "op": ">", "val": 3}, {"name": "repair_id", "op": "is_not_null"}]}]}'
)


@pytest.mark.parametrize("batch", [1, 5000])
def test_with_q_only_the_selected_expired_logs_are_removed(
    run: Run, query: Query, stored: list[str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("factory_logs.retention.removal.BATCH_LOGS", batch)
    shown = run("retention", "--older-than", "400d", "--q", BY_APP)
    assert shown.stdout.splitlines()[0] == f"tiger: 2 logs from {stored[3]} to {stored[2]}"
    assert shown.stdout.splitlines()[1].endswith(" that --q selects would be deleted")
    assert len(ages(query)) == 8
    assert run("retention", "--older-than", "400d", "--q", BY_APP, "--delete").exit_code == 0
    assert ages(query) == [1, 2, 3, 4, 5, 6]
    assert run("retention", "--older-than", "400d", "--q", BY_PATH, "--delete").exit_code == 0
    assert ages(query) == [1, 2, 5, 6]


@pytest.mark.parametrize(
    ("q", "reason"),
    [
        ('{"filters": [], "limit": 5}', "filters only"),
        ('{"filter": [{"name": "app_name", "op": "==", "val": "x"}]}', "filters only"),
        ("{}", "filters only"),
        ('{"filters": []}', "q has no filters"),
        ('{"filters": [{"name": "jig", "op": "==", "val": 1}]}', "jig"),
        ("{", "Unable to decode data"),
        ("", "Unable to decode data"),
    ],
)
def test_an_invalid_q_deletes_nothing(run: Run, query: Query, stored: list[str], q: str, reason: str) -> None:
    refused = run("retention", "--older-than", "1d", "--q", q, "--delete")
    assert refused.exit_code == 1
    assert reason in refused.stderr
    assert len(ages(query)) == 8


def rows(query: Query) -> list[dict[str, object]]:
    """Return all logs as PostgreSQL's text."""
    return query("select l::text as log from factory_logs l order by factory_log_id")


def test_an_archive_restores_the_deleted_logs_unchanged(
    run: Run, query: Query, stored: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory_logs.retention.archive.PART_LOGS", 1)
    monkeypatch.setattr("factory_logs.querier.exports.FETCH_ROWS", 1)
    monkeypatch.setattr("factory_logs.retention.removal.BATCH_LOGS", 3)
    query("update factory_logs set modified_at = 'infinity', modified_by = 'ann' where factory_log_id = 3")
    query("insert into repairs (product_imei) values ('352099001761481')")
    query("update factory_logs set repair_id = 1, tags = null, timestamp = '-infinity' where factory_log_id = 4")
    numbers = '{"n": 1.10, "big": 12345678901234567890, "e": 1e300, "t": "ü\\n\\""}'
    query(f"update factory_logs set tags = '[1, null]', fields = '{numbers}' where factory_log_id = 8")
    before = rows(query)
    archived = run("retention", "--older-than", "400d", "--delete", "--archive", tmp_path)
    assert archived.exit_code == 0, archived.stderr
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", *(f"part-0000{number}.ndjson.zst" for number in (1, 2, 3, 4)),
    ]  # fmt: skip
    assert ages(query) == [1, 2, 5, 6]
    back = run("import", folder)
    assert (back.exit_code, back.stdout) == (0, f"Imported 4 logs from {folder}\n"), back.stderr
    assert rows(query) == before
    again = run("import", folder)
    assert again.stdout == f"Imported 0 logs from {folder}; 4 were there already\n"
    assert rows(query) == before
    assert run("import", "-", "--format", "ndjson", stdin=lines(LOG)).exit_code == 0
    assert ages(query)[-1] == 9


def test_without_delete_no_archive_is_written(run: Run, stored: list[str], tmp_path: Path) -> None:
    assert run("retention", "--older-than", "400d", "--archive", tmp_path / "archives").exit_code == 0
    assert run("retention", "--older-than", "4000d", "--delete", "--archive", tmp_path / "archives").exit_code == 0
    assert not (tmp_path / "archives").exists()


def test_nothing_is_deleted_if_the_archive_cannot_be_written_or_verified(
    run: Run, query: Query, stored: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    refused = run("retention", "--older-than", "400d", "--delete", "--archive", tmp_path / "file" / "archives")
    assert (refused.exit_code, len(ages(query))) == (1, 8)

    def damage(opened: Path) -> Archive:
        part = opened / "part-00001.ndjson.zst"
        content = part.read_bytes()
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return open_archive(opened)

    monkeypatch.setattr("factory_logs.retention.removal.open_archive", damage)
    refused = run("retention", "--older-than", "400d", "--delete", "--archive", tmp_path / "archives")
    assert refused.exit_code == 1
    assert "is damaged" in refused.stderr
    assert len(ages(query)) == 8


@pytest.fixture
def archived(run: Run, stored: list[str], tmp_path: Path) -> Path:
    """Write an archive of the logs 3, 4, 7 and 8, and delete them."""
    assert run("retention", "--older-than", "400d", "--delete", "--archive", tmp_path / "archives").exit_code == 0
    (folder,) = (tmp_path / "archives").iterdir()
    return folder


def test_another_log_with_an_id_of_the_archive_is_not_overwritten(run: Run, query: Query, archived: Path) -> None:
    query("insert into factory_logs (factory_log_id, app_name, timestamp) values (7, 'other', '2024-01-31')")
    before = rows(query)
    refused = run("import", archived)
    assert refused.exit_code == 1
    assert "the database has another log with the id 7" in refused.stderr
    assert rows(query) == before


def test_an_archive_of_another_database_moves_the_sequence_beyond_its_ids(
    run: Run, query: Query, archived: Path
) -> None:
    query("truncate factory_logs restart identity")
    assert run("import", archived).exit_code == 0
    assert run("import", "-", "--format", "ndjson", stdin=lines(LOG)).exit_code == 0
    assert ages(query) == [3, 4, 7, 8, 9]


def test_a_log_whose_repair_is_missing_is_named(run: Run, query: Query, stored: list[str], tmp_path: Path) -> None:
    query("insert into repairs (product_imei) values ('352099001761481')")
    query("update factory_logs set repair_id = 1 where factory_log_id = 4")
    assert run("retention", "--older-than", "400d", "--delete", "--archive", tmp_path).exit_code == 0
    query("delete from repairs")
    (folder,) = tmp_path.iterdir()
    refused = run("import", folder)
    assert refused.exit_code == 1
    assert "repair" in refused.stderr
    assert ages(query) == [1, 2, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "missing", "manifest", "count", "path", "no manifest"])
def test_a_damaged_archive_restores_nothing(run: Run, query: Query, archived: Path, damage: str) -> None:
    part, manifest = archived / "part-00001.ndjson.zst", archived / "manifest.json"
    text = manifest.read_text()
    match damage:
        case "cut":
            part.write_bytes(part.read_bytes()[:-10])
        case "missing":
            part.unlink()
        case "manifest":
            manifest.write_text(text[:-20])
        case "count":
            manifest.write_text(text.replace('"logs": 4', '"logs": 5', 1))
        case "path":
            manifest.write_text(text.replace("part-00001", "../part-00001"))
        case "no manifest":
            manifest.unlink()
    refused = run("import", archived)
    assert refused.exit_code == 1
    assert str(archived) in refused.stderr
    assert ages(query) == [1, 2, 5, 6]


def test_options_of_files_do_not_apply_to_an_archive(run: Run, query: Query, archived: Path) -> None:
    assert run("import", archived, "--created-by", "ann").exit_code == 1
    assert ages(query) == [1, 2, 5, 6]
