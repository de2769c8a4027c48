"""PostgreSQL's plans and their indexes, on enough logs for the planner to prefer an index."""

import re
from typing import Any

LOGS = 60_000
PAGE = 10
UNIT = "352099000000703"
IMEI = "ix_factory_logs_product_imei_timestamp"
APP = "ix_factory_logs_app_name_timestamp"
TIME = "ix_factory_logs_timestamp"
REPAIR = "ix_factory_logs_repair_id"
TAGS = "ix_factory_logs_tags"
ID = "factory_logs_pkey"


def leaf(name: str, op: str, val: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "val": val}


def indexes(plan: str) -> set[str]:
    """Return the indexes that a plan uses; a sequential scan counts as an index that does not exist."""
    whole = re.findall(r"Seq Scan on (factory_logs|repairs)\b", plan)
    return set(re.findall(r"(?:using|Bitmap Index Scan on) (\w+)", plan)) | {f"the whole of {name}" for name in whole}
