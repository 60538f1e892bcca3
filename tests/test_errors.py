import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import errors
from exporter.errors import (
    MAX_MESSAGE,
    MAX_SHOWN,
    mask_url,
    mask_urls,
    one_line,
    quote,
    shorten,
    shorten_values,
)

SECRET = "http://user:pa?s/s@word@host:3128/"


def test_tree_in_the_docstring_is_that_of_the_classes() -> None:
    lines = re.findall(r"^\W*([A-Z]\w+) +(\d)(.*)$", errors.__doc__ or "", re.MULTILINE)

    assert {(name, int(code), "(retryable)" in rest) for name, code, rest in lines} == {
        (each.__name__, each.exit_code, each.retryable)
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.ExporterError)
    }


def test_short_text_stays() -> None:
    assert shorten("n" * MAX_SHOWN) == "n" * MAX_SHOWN


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = shorten("begin" + "n" * 5000 + "end.parquet")

    assert len(shown) == MAX_SHOWN
    assert shown.startswith("beginnnn")
    assert shown.endswith("nnnend.parquet")
    assert "..." in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb", r"'a\nb'"),
        (5, "5"),
        ([1, [2]], "[1, [2]]"),
        (int("f" * 5000, 16), "a value of type int"),
    ],
    ids=["text", "number", "list", "digits beyond measure"],
)
def test_value_is_quoted_as_python_writes_it(value: object, shown: str) -> None:
    assert quote(value) == shown


def test_tables_in_tables_are_quoted() -> None:
    value: object = 1
    for _ in range(100_000):
        value = [value]

    assert len(quote(value)) <= MAX_SHOWN


@pytest.mark.parametrize(
    "message",
    [
        "cannot read 'it.toml': No such file or directory",
        f"the run's output '{'a' * MAX_SHOWN}' isn't there",
        "x=" + " y" * 400,
        # Apostrophes within words, far apart, are no quotes.
        f"the gateway's list {'moved ' * 60} and the run's end",
        f"'a' holds {'something ' * 30} else: 'b'",
    ],
)
def test_message_of_short_values_stays(message: str) -> None:
    assert shorten_values(message) == message


@pytest.mark.parametrize("mark", ["'", '"'])
@pytest.mark.parametrize("value", ["n" * 5000, "a b " * 1000, r"it\'s " * 500])
def test_value_in_quotes_is_cut_within_them(value: str, mark: str) -> None:
    shown = shorten_values(f"cannot read {mark}{value}{mark}: No such file")

    assert shown.startswith(f"cannot read {mark}{value[:20]}")
    assert shown.endswith(f"{mark}: No such file")
    assert len(shown) <= MAX_SHOWN + len(f"cannot read {mark}{mark}: No such file")


def test_word_that_stands_in_no_quotes_is_cut() -> None:
    assert len(shorten_values("unknown variable " + "n" * 5000)) == 17 + MAX_SHOWN


@given(st.text())
def test_any_text_becomes_one_line_that_utf8_can_hold(text: str) -> None:
    line = one_line(text * 3)

    assert len(line.splitlines()) <= 1
    assert line.encode().decode() == line
    assert len(shorten_values(line)) <= MAX_MESSAGE


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", r"a\x0ab"),
        ("\x1b[31m\x9b", r"\x1b[31m\x9b"),
        ("a\u2028b", r"a\u2028b"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        ("\U000e0001", r"\U000e0001"),
        ("用户\u3000é", "用户\u3000é"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://host:1/path", "https://host:1/path"),
        ("https://user:word@host:1/path", "***@host:1/path"),
        (SECRET, "***@host:3128/"),
        ("https://host/path?token=1", "https://host/path"),
        ("https://u:p@host/path?token=1", "***@host/path"),
        ("", ""),
    ],
)
def test_url_is_shown_without_what_may_be_a_password(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("no URL, but a@b", "no URL, but a@b"),
        ("at http://host:1/ and a@b", "at http://host:1/ and a@b"),
        (f"at {SECRET}, twice: {SECRET}", "at http://***@host:3128/, twice: http://***@host:3128/"),
        ("url='HTTP://u:p@h', s3a://k:s@b/x", "url='HTTP://***@h', s3a://***@b/x"),
        ("postgresql+psycopg2://u:p@h", "postgresql+psycopg2://***@h"),
    ],
)
def test_text_is_shown_with_its_urls_masked(text: str, masked: str) -> None:
    assert mask_urls(text) == masked
