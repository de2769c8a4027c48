import pytest
from sqlalchemy import false

from factory_logs.influxql.ast import Select
from factory_logs.influxql.conditions import compile_condition
from factory_logs.influxql.parser import parse_query
from factory_logs.influxql.schema import MeasurementSchema


@pytest.mark.parametrize("wanted", ["01", "-1", "2147483648", "9" * 5_000])
def test_text_that_is_not_the_id_of_a_repair_matches_no_log(wanted: str) -> None:
    (statement,) = parse_query(f"SELECT a FROM m WHERE repair_id = '{wanted}'")
    assert isinstance(statement, Select)
    assert statement.condition is not None
    found = compile_condition(statement.condition, MeasurementSchema(tags={"repair_id": []}))
    assert str(found) == str(false())
