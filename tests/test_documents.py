"""README.md, config.example.toml and .ci/run say what the program does."""

import argparse
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from exporter import errors
from exporter.cli.parser import build_parser
from exporter.errors import ExporterError
from exporter.records.schema import SCHEMA
from exporter.settings.fields import Field, read_fields
from exporter.settings.load import load_settings
from exporter.settings.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "config.example.toml").read_text(encoding="utf-8")
CI_RUN = ROOT / ".ci" / "run"

FIELDS = {field.name: field for field in read_fields()}
NAMES = list(FIELDS)


def read_table(head: str) -> list[list[str]]:
    """Cells of the README's table whose first row starts with `head`, without its two head rows."""
    assert README.count(f"\n{head}") == 1, f"README.md has not one table that starts {head!r}"
    rows = README.partition(f"\n{head}")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def unquote(cell: str) -> str:
    return cell.strip("`")


def read_marked_command(marker: str) -> str:
    """The text of the first fenced block behind a marker."""
    found = re.search(rf"^<!-- {marker} -->\n+```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README.md has no fenced block behind <!-- {marker} -->"
    return found[1].strip()


def example_lines() -> list[str]:
    """The example's keys, each one set."""
    return re.findall(r"^#([a-z_]+ = .*)$", EXAMPLE, re.MULTILINE)


def flags_of(*command: str) -> dict[str, str]:
    """Setting to its long flag, as the parser of a command takes it."""
    parser: argparse.ArgumentParser = build_parser()
    for name in command:
        subparsers = next(
            action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
        )
        parser = subparsers.choices[name]
    return {
        action.dest: next(flag for flag in action.option_strings if flag.startswith("--"))
        for action in parser._actions
        if action.dest in FIELDS
    }


def test_readme_lists_every_setting_in_order() -> None:
    rows = read_table("| flag | key | variable |")

    assert [unquote(key) for _, key, *_ in rows] == NAMES


@pytest.mark.parametrize("field", FIELDS.values(), ids=NAMES)
def test_readme_names_flag_key_variable_and_default(field: Field) -> None:
    rows = {unquote(row[1]): row for row in read_table("| flag | key | variable |")}

    flag, key, variable, default, meaning = rows[field.name]

    assert flag == f"`{field.flag}`"
    assert key == f"`{field.name}`"
    assert variable == f"`{field.variable}`"
    assert meaning != ""
    if field.default is not None:
        unset = "" if field.default == () else str(field.default).lower()
        assert unquote(default) == (field.default_text or unset)


@pytest.mark.parametrize("command", [("export",), ("plan",), ("config", "show")], ids=" ".join)
def test_every_setting_is_a_flag(command: tuple[str, ...]) -> None:
    assert flags_of(*command) == {field.name: field.flag for field in FIELDS.values()}


def test_flags_of_other_commands_are_settings_too() -> None:
    assert flags_of("gateways").keys() == {
        field.name
        for field in FIELDS.values()
        if field.option.group not in {"output", "object store", "run after run"}
    }
    assert flags_of("demo").keys() == {"progress", "log_format", "verbose", "quiet"}


def test_example_has_every_key_in_order() -> None:
    assert [line.partition(" = ")[0] for line in example_lines()] == NAMES


def test_example_has_only_comments() -> None:
    assert tomllib.loads(EXAMPLE) == {}


def test_example_loads_with_every_line_set(tmp_path: Path) -> None:
    path = tmp_path / "livy.toml"
    path.write_text(re.sub(r"^#(?=[a-z_]+ = )", "", EXAMPLE, flags=re.MULTILINE), encoding="utf-8")

    loaded = load_settings({}, environ={}, config_file=str(path))

    assert list(loaded.given) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_example_shows_the_default_where_there_is_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / "livy.toml"
    lines = [line for line in example_lines() if line.startswith(f"{name} = ")]
    path.write_text("\n".join(lines), encoding="utf-8")

    settings = load_settings({}, environ={}, config_file=str(path)).settings

    if FIELDS[name].default is None:
        assert getattr(settings, name) is not None
    else:
        assert settings == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_example_explains_each_key_in_one_line(name: str) -> None:
    assert re.search(rf"\n\n# [A-Z\"].*\.\n#{name} = ", EXAMPLE) is not None


@pytest.mark.parametrize("field", FIELDS.values(), ids=NAMES)
def test_choices_are_named_in_readme_and_example(field: Field) -> None:
    rows = {unquote(row[1]): row for row in read_table("| flag | key | variable |")}
    explanation = EXAMPLE.partition(f"\n#{field.name} = ")[0].rpartition("\n")[2]

    for choice in field.choices:
        assert f'"{choice}"' in explanation
        if field.name != "compression":
            assert choice in rows[field.name][-1]


def read_error_classes(base: type[ExporterError] = ExporterError) -> list[type[ExporterError]]:
    below = [each for child in base.__subclasses__() for each in read_error_classes(child)]
    return [base, *(each for each in below if each.__module__ == errors.__name__)]


def test_readme_has_the_exit_codes_of_the_errors() -> None:
    rows = read_table("| code | meaning |")

    codes = {int(code) for cell, _ in rows for code in cell.split(", ")}

    assert codes == {0, 130, 143} | {each.exit_code for each in read_error_classes()}


def test_error_tree_is_drawn_with_the_exit_codes_of_the_classes() -> None:
    drawn = re.findall(r"^[│├└─ ]*(\w+Error) +(\d)\b", errors.__doc__ or "", re.MULTILINE)

    assert {name: int(code) for name, code in drawn} == {
        each.__name__: each.exit_code for each in read_error_classes()
    }


def test_help_of_export_has_the_exit_codes_of_the_readme() -> None:
    epilog = build_parser().parse_args(["export"]).parser.epilog
    told = epilog.partition("exit codes: ")[2]

    codes = {int(code) for code in re.findall(r"\b\d+\b", told)}

    assert codes == {
        int(code) for cell, _ in read_table("| code | meaning |") for code in cell.split(", ")
    }


def test_readme_lists_every_command() -> None:
    rows = read_table("| command | does |")

    listed = [unquote(name) for cell, _ in rows for name in cell.split(", ")]

    help_text = build_parser().format_help()
    assert [name.partition(" ")[0] for name in listed if name != "config schema"] == re.findall(
        r"^    ([a-z]+) ", help_text.partition("  COMMAND\n")[2], re.MULTILINE
    )


def test_readme_lists_every_column_in_order() -> None:
    rows = read_table("| column | type | from |")

    assert [unquote(name) for cell, *_ in rows for name in cell.split(", ")] == SCHEMA.names


@pytest.mark.parametrize(
    ("marker", "ending"),
    [("demo command", "/livy-exporter demo"), ("test command", "/python -m pytest -n 4")],
)
def test_readme_sets_up_by_one_line(marker: str, ending: str) -> None:
    command = read_marked_command(marker)

    assert "\n" not in command
    assert command.startswith("python3 -m venv ")
    assert command.endswith(ending)


def test_readme_commands_share_no_environment() -> None:
    environments = [
        read_marked_command(marker).split()[3] for marker in ("demo command", "test command")
    ]

    assert len(set(environments)) == 2


@pytest.mark.skipif(not CI_RUN.exists(), reason="a source distribution has no .ci/run")
@pytest.mark.parametrize("marker", ["demo command", "test command", "campaign command"])
def test_ci_runs_the_command_of_the_readme(marker: str) -> None:
    script = CI_RUN.read_text(encoding="utf-8")
    function = re.search(r"^readme_command\(\) \{.*?^\}$", script, re.MULTILINE | re.DOTALL)
    assert function is not None, ".ci/run has no function readme_command"

    extracted = subprocess.run(
        ["/bin/bash", "-euc", f'{function[0]}\nreadme_command "{marker}"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    variable = marker.replace(" ", "_")
    assert extracted.stdout.strip() == read_marked_command(marker)
    assert f'{variable}=$(readme_command "{marker}")' in script
    assert re.search(rf'^bash .*-c "\${variable}"$', script, re.MULTILINE) is not None
