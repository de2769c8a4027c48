"""docker-compose.citus.yml, without a container engine: the nodes are set up as the page and `distribute` require."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.citus.yml").read_text())
PAGE = (ROOT / "docs" / "how-to" / "scale-out.md").read_text()
NODES = ("coordinator", "worker1", "worker2", "worker3")


@pytest.mark.parametrize("node", NODES)
def test_each_node_runs_citus_with_prepared_transactions_and_keeps_its_data(node: str) -> None:
    service = COMPOSE["services"][node]
    parameters = dict(option.removeprefix("-c").split("=", 1) for option in service["command"][1:])
    assert service["image"] == "citusdata/citus:14"
    assert parameters["shared_preload_libraries"] == "citus"
    assert int(parameters["max_prepared_transactions"]) >= int(parameters["max_connections"])
    assert parameters["citus.recover_2pc_interval"] == "5s"
    assert service["volumes"] == [f"{node}:/var/lib/postgresql"]
    assert node in COMPOSE["volumes"]


def test_the_service_starts_after_the_logs_are_distributed_over_all_worker_nodes() -> None:
    services = COMPOSE["services"]
    chain = ("api", "distribute", "migrate", "nodes")
    for later, earlier in pairwise(chain):
        assert services[later]["depends_on"][earlier] == {"condition": "service_completed_successfully"}
    assert set(services["nodes"]["depends_on"]) == set(NODES)
    added = " ".join(services["nodes"]["command"])
    assert all(f"citus_add_node('{node}', 5432)" in added for node in NODES[1:])


def test_the_page_names_the_parameters_of_the_nodes() -> None:
    for name in ("shared_preload_libraries", "wal_level", "max_prepared_transactions", "citus.recover_2pc_interval"):
        assert name in PAGE
