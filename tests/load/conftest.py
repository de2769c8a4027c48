"""The service in this process, as tests/api has it."""

from tests.api.conftest import app as app
from tests.api.conftest import password_hash as password_hash
from tests.api.conftest import tokens as tokens
