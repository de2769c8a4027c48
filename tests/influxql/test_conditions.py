import pytest
from sqlalchemy import false

from factory_logs.influxql.ast import Select, Type
from factory_logs.influxql.conditions import compile_condition
from factory_logs.influxql.parser import parse_query
from factory_logs.influxql.resolving import typed_condition
from factory_logs.influxql.schema import FieldKey, MeasurementSchema


@pytest.mark.parametrize("wanted", ["01", "-1", "2147483648", "9" * 5_000])
def test_text_that_is_not_the_id_of_a_repair_matches_no_log(wanted: str) -> None:
    (statement,) = parse_query(f"SELECT a FROM m WHERE repair_id = '{wanted}'")
    assert isinstance(statement, Select)
    assert statement.condition is not None
    found = compile_condition(statement.condition, MeasurementSchema(tags={"repair_id": []}))
    assert str(found) == str(false())


@pytest.mark.parametrize("condition", ["jig_id::field > n", "jig_id::field + 1 = 2", "n = jig_id::field"])
def test_a_field_that_the_measurement_has_only_as_a_tag_matches_no_log(condition: str) -> None:
    (statement,) = parse_query(f"SELECT n FROM m WHERE {condition}")
    assert isinstance(statement, Select)
    assert statement.condition is not None
    measurement = MeasurementSchema({"n": FieldKey({Type.INTEGER}, [("n",)])}, {"jig_id": [("jig_id",)]})
    found = compile_condition(typed_condition(statement.condition, measurement), measurement)
    assert "jig_id" not in found.compile().params.values()
