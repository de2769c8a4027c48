import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.security.tokens import SCHEMES, TOKEN_LENGTH, hash_token, new_token, parse_authorization

sendable_tokens = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=80)


def test_a_new_token_is_64_letters_and_digits_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9]{64}", token) for token in tokens)
    assert TOKEN_LENGTH == 64


def test_a_token_is_stored_as_its_sha256() -> None:
    assert hash_token("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "header",
    [
        "Token token=abc",
        "token token=abc",
        "TOKEN TOKEN=abc",
        'Token token="abc"',
        "  Token \t token = abc  ",
        "Token abc",
        'token "abc"',
        "Bearer abc",
        "bearer \t abc ",
        'BEARER "abc"',
        "Bearer token=abc",
        "abc",
        " abc ",
        '"abc"',
        "token=abc",
    ],
)
def test_the_token_is_read_from_every_accepted_spelling(header: str) -> None:
    assert parse_authorization(header) == "abc"


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "Token",
        "Token ",
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Basic YTpi",
        "a b",
        "Token token=",
        'Token token=""',
        'Token token="abc',
        'Token token=abc"',
        "Token a b",
        "Token token=abc, nonce=1",
        "Token token=ü",
    ],
)
def test_any_other_header_contains_no_token(header: str) -> None:
    assert parse_authorization(header) is None


def test_an_influx_token_may_end_in_equals_signs() -> None:
    assert parse_authorization("Token YWJj==") == "YWJj=="


@given(st.text())
def test_no_header_makes_the_parser_raise(header: str) -> None:
    parse_authorization(header)
    parse_authorization("Token " + header)
    parse_authorization("Token token=" + header)


@given(sendable_tokens.filter(lambda token: token.lower() not in SCHEMES))
def test_every_token_is_read_back_plain_named_and_quoted(token: str) -> None:
    for header in (f"Token {token}", f"Token token={token}", f'tOkEn token="{token}"', f"Bearer {token}", token):
        assert parse_authorization(header) == token


@given(st.text())
def test_any_text_can_be_hashed(text: str) -> None:
    assert len(hash_token(text)) == 32
