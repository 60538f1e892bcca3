import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import MAX_MESSAGE, MAX_SHOWN, one_line, quote, shorten, shorten_values


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
