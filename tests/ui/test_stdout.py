import pytest

from exporter.ui.stdout import build_table, print_json


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    table = build_table(("ID", "SESSIONS"), [("w-1", "1,200"), ("workspace-2", "7")])

    assert table.splitlines() == [
        "ID           SESSIONS",
        "w-1             1,200",
        "workspace-2         7",
    ]


def test_chinese_characters_take_two_columns_each() -> None:
    table = build_table(("NAME", "STATUS"), [("用户画像", "RUNNING"), ("users", "STOPPED")])

    assert table.splitlines() == [
        "NAME      STATUS",
        "用户画像  RUNNING",
        "users     STOPPED",
    ]


def test_column_with_a_word_in_it_keeps_to_the_left() -> None:
    table = build_table(("A", "B"), [("10", "x"), ("lc-1", "y")])

    assert table.splitlines() == ["A     B", "10    x", "lc-1  y"]


def test_cells_cannot_break_the_row_or_steer_the_terminal() -> None:
    table = build_table(("NAME", "STATUS"), [("a\nb\x1b[2J\x9b", "RUNNING")])

    assert table.splitlines()[1] == "a?b?[2J?  RUNNING"


def test_table_of_nothing_is_its_head() -> None:
    assert build_table(("NAME", "STATUS"), []) == "NAME  STATUS\n"


def test_json_is_utf_8_and_indented(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"name": "用户"}])

    assert capsys.readouterr().out == '[\n  {\n    "name": "用户"\n  }\n]\n'
