import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.records.decode import decode_json
from exporter.records.encode import MAX_LEVELS, encode_json

PLAIN = b'{"sessions":[{"sessionId":"a","cuHours":1.5}],"totalCount":1}'


def read_row(row: bytes) -> Any:
    return decode_json(b'{"sessions":[' + row + b"]}")["sessions"][0]


def test_usual_document_is_read_as_it_is() -> None:
    assert decode_json(PLAIN) == orjson.loads(PLAIN)


@pytest.mark.parametrize(
    ("name", "kept", "received"),
    [
        pytest.param(b"\\ud800", "\\ud800", "\ud800", id="lone high surrogate"),
        pytest.param(b"a\\udfffb", "a\\udfffb", "a\udfffb", id="lone low surrogate"),
        pytest.param(
            b"\\ud83e\\udd86\\ud83e", "\U0001f986\\ud83e", "\U0001f986\ud83e", id="half a pair"
        ),
        pytest.param(b"a\x80b", "a\\udc80b", "a\udc80b", id="no UTF-8"),
        pytest.param(b"\xed\xa0\x80", "\\udced\\udca0\\udc80", "\udced\udca0\udc80", id="CESU-8"),
    ],
)
def test_text_that_utf_8_cannot_hold_is_escaped_and_kept(
    name: bytes, kept: str, received: str
) -> None:
    row = read_row(b'{"sessionId":"s","name":"' + name + b'"}')

    assert row["name"] == kept
    assert json.loads(row["received_name"]) == received
    assert orjson.loads(encode_json(row)) == row, "strict readers take it"


def test_ids_that_differ_only_in_a_surrogate_stay_different() -> None:
    ids = {read_row(b'{"sessionId":"a\\ud80%d"}' % number)["sessionId"] for number in range(8)}

    assert len(ids) == 8


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400])
def test_number_beyond_a_double_is_null_and_kept(number: str) -> None:
    row = read_row(f'{{"sessionId":"s","cuHours":{number}}}'.encode())

    assert row == {"sessionId": "s", "cuHours": None, "received_cuHours": number}


def test_million_digits_are_not_counted() -> None:
    digits = "9" * 1_000_000

    assert read_row(f'{{"n":{digits}}}'.encode()) == {"n": None, "received_n": digits}


def test_whole_number_beyond_64_bits_is_a_number() -> None:
    row = read_row(b'{"n":1000000000000000000000000000000,"name":"\\ud800"}')

    assert row["n"] == 10**30
    assert b'"n":1000000000000000000000000000000' in encode_json(row)


def test_odd_value_inside_a_value_is_kept_by_the_object_it_is_in() -> None:
    row = read_row(b'{"tags":["a",["\\ud800",NaN]],"owner":{"name":"\\ud800","age":3}}')

    assert row["tags"] == ["a", ["\\ud800", None]]
    assert row["received_tags"] == '["a",["\\ud800","NaN"]]'
    assert row["owner"] == {"name": "\\ud800", "age": 3, "received_name": '"\\ud800"'}
    assert "received_owner" not in row


def test_name_of_a_field_is_escaped_and_takes_no_other_fields_place() -> None:
    row = read_row(b'{"\\ud800":1,"name":"\\ud800","received_name":"mine"}')

    assert row["\\ud800"] == 1
    assert row["received_name"] == "mine"
    assert row["received_received_name"] == '"\\ud800"'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xef\xbb\xbf" + PLAIN, id="byte order mark"),
        pytest.param(
            b' {"sessions":[{"sessionId":"a","cuHours":1.5}],"totalCount":1}\n', id="space"
        ),
    ],
)
def test_bytes_around_a_document_are_ignored(body: bytes) -> None:
    assert decode_json(body) == orjson.loads(PLAIN)


def test_bare_line_break_in_a_text_is_read() -> None:
    assert read_row(b'{"name":"a\n\x00b"}') == {"name": "a\n\x00b"}


def test_last_of_two_fields_of_one_name_counts_as_it_does_for_orjson() -> None:
    assert read_row(b'{"a":1,"a":2}') == {"a": 2}
    assert read_row(b'{"a":1,"a":2,"b":NaN}')["a"] == 2


@pytest.mark.parametrize("levels", [300, 990, 1_020, 2_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_row_of_any_depth_is_read_written_and_read_again(
    levels: int, opening: bytes, closing: bytes
) -> None:
    deep = opening * levels + b"1" + closing * levels
    row = read_row(b'{"sessionId":"s","tree":' + deep + b',"name":"[{\\"x"}')

    assert (row["sessionId"], row["name"]) == ("s", '[{"x')
    written = encode_json(row)
    assert json.loads(written)["sessionId"] == "s"
    # What is too deep is a text of JSON: without quotes and their escapes, nothing is missing.
    assert (
        written.replace(b"\\", b"").replace(b'"', b"").count(opening.replace(b'"', b"")) >= levels
    )


def test_no_more_levels_than_others_can_read_are_left_of_a_document_too_deep() -> None:
    value: Any = decode_json(b"[" * 5_000 + b"]" * 5_000)
    levels = 0
    while isinstance(value, list):
        levels, value = levels + 1, value[0]

    assert levels == MAX_LEVELS
    assert value == "[" * 4_800 + "]" * 4_800


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":"\\ud800"',
        b"[1,]",
        b"[01]",
        b"<html>",
        b"[" * 100_000,
        b'"\\"' * 3,
        b"[NaN",
    ],
)
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1|empty|zero-length|EOF"):
        decode_json(body)


def test_text_without_an_end_is_passed_over_once() -> None:
    with pytest.raises(ValueError, match="line 1"):
        decode_json(b"[" * 2_000 + b'"' + b'\\"' * 1_000_000)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=10,
)


@given(json_values)
def test_json_of_the_standard_library_is_read_and_can_be_written_strictly(value: Any) -> None:
    found = decode_json(json.dumps([value, float("nan")]).encode())

    assert json.loads(encode_json(found), parse_constant=pytest.fail) == found
    json.dumps(found, ensure_ascii=False).encode()
