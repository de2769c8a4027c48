"""Explain why nothing is found, by the catalog: the query names a path or an app that no log has, or compares a value
with another type than the logs have.

None of this is an error, because a log with such a path may arrive at any time.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from factory_logs.spelling import nearest

Json = Mapping[str, Any]

COLUMNS = ("tags", "fields")
MOST_HINTS = 5
LONGEST_SHOWN = 80
_EQUALS = frozenset({"==", "eq", "equals", "equal_to"})
_OF_ANY_TYPE = frozenset({"is_null", "is_not_null", "has", "any"})


def hints(catalog: Json, q: Json, names: Iterable[str] = ()) -> list[str]:
    """Return a line for each problem, at most MOST_HINTS. `q` is a valid query that selects nothing, or nothing that
    counts; `names` are other fields that the request names."""
    types = _types(catalog)
    filters = list(_filters(q.get("filters")))
    named = [
        *(each[key] for each in filters for key in ("name", "field", "fieldname") if isinstance(each.get(key), str)),
        *(each["field"] for key in ("order_by", "group_by") for each in q.get(key) or ()),
        *names,
    ]
    found = [_unknown("field", name, types) for name in named if _is_path(name) and not _exists(name, types)]
    apps = [app["app_name"] for app in catalog["apps"]]
    for each in filters:
        name, value = each.get("name"), each.get("val")
        if name == "app_name" and each.get("op") in _EQUALS and isinstance(value, str) and value not in apps:
            found.append(_unknown("app", value, apps))
        elif name in types and each.get("op") not in _OF_ANY_TYPE and "val" in each:
            found += _of_other_type(name, value, types[name])
    return list(dict.fromkeys(found))[:MOST_HINTS]


def _types(catalog: Json) -> dict[str, set[str]]:
    """Return the types at each path in the logs of all apps."""
    types: dict[str, set[str]] = {}
    for app in catalog["apps"]:
        for column in COLUMNS:
            for path in app[column]:
                types.setdefault(path["path"], set()).update(path["types"])
    return types


def _filters(given: Any) -> Iterator[Json]:
    """Yield all filters of a list that are not combinations of others."""
    for each in given or ():
        inner = [*(each.get("or") or ()), *(each.get("and") or ()), *filter(None, [each.get("not")])]
        if inner:
            yield from _filters(inner)
        else:
            yield each


def _is_path(name: str) -> bool:
    return name.partition("__")[0] in COLUMNS and "__" in name


def _exists(name: str, types: Mapping[str, set[str]]) -> bool:
    """Return whether logs have a value at a path; it may be an object."""
    return name in types or any(path.startswith(f"{name}__") for path in types)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    listed = list(known)
    last = name.rpartition("__")[2]
    meant = nearest(name, listed) or next((path for path in listed if path.rpartition("__")[2] == last), None)
    return f"no log has the {kind} {name[:LONGEST_SHOWN]}" + (f"; did you mean {meant}?" if meant else "")


def _of_other_type(name: str, value: object, types: set[str]) -> Iterator[str]:
    kinds = {_json_type(each) for each in (value if isinstance(value, list) else [value])}
    if kinds and not kinds & types:
        yield f"{name} is compared with a {' or '.join(sorted(kinds))}, but in the logs it is a {_listed(types)}"


def _listed(types: set[str]) -> str:
    return " or ".join(sorted(types))


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
    return "null" if value is None else "object"
