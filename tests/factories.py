"""Valid records for tests that need any record."""

LOG = {
    "app_name": "tiger_test_jig_production",
    "product_imei": "352099001761481",
    "timestamp": "2024-01-31T13:45:00.5Z",
    "tags": {"jig_id": "J-07", "hostname": "CN-REG03"},
    "fields": {"passed": True, "voltage": 3.28},
}
REPAIR = {
    "product_imei": "352099001761481",
    "arrival_date": "2024-01-31T13:45:00.123456789+01:00",
    "refurbishment_date": 1706708700123,
    "measured_battery_capacity": 1e22,
    "process": "Broken on Arrival",
    "pending_status": "waiting for naïve parts 🔋",
    "outcome": "",
}
