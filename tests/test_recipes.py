"""Claims that the schedulers' recipes of the README work as written, but for the places in them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.support.patience import HANG_S
from tests.support.program import Program

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
INSTALLED = Path(sys.executable).parent / "livy-exporter"


def read_block(marker: str) -> str:
    found = re.search(rf"^<!-- {marker} -->\n```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def placed(text: str, folder: Path) -> str:
    """The text with places of this test for those of a real machine."""
    return (
        text.replace("/etc/livy-exporter.env", str(folder / "livy-exporter.env"))
        .replace("/opt/livy-exporter/bin/livy-exporter", str(INSTALLED))
        .replace("/var/lib/livy-exporter/", f"{folder}/")
        .replace("/data/", f"{folder}/")
    )


def commands() -> dict[str, list[str]]:
    """The arguments of each scheduler's export."""
    cron = read_block("crontab").splitlines()[-1].partition("bin/livy-exporter ")[2]
    service = read_block("systemd service").replace("\\\n", " ")
    (started,) = re.findall(r"^ExecStart=\S+ (.*)$", service, re.MULTILINE)
    (listed,) = re.findall(r"args: \[(.*?)\]", read_block("cronjob"), re.DOTALL)
    return {
        "crontab": shlex.split(cron),
        "systemd": shlex.split(started),
        "kubernetes": [word.strip() for word in listed.split(",")],
    }


def test_crontab_line_has_five_times_and_no_bare_percent() -> None:
    mail, line = read_block("crontab").splitlines()

    assert re.fullmatch(r"\w+=\S+", mail) is not None
    assert re.match(r"([\d*/,-]+ ){5}\S", line) is not None
    assert re.search(r"(?<!\\)%", line) is None


def test_crontab_line_runs_in_the_shell_and_environment_of_cron(program: "Program") -> None:
    names = re.findall(r"^(\w+)=", read_block("environment file"), re.MULTILINE)
    lines = [f"{name}={program.environ[name]}" for name in [*names, "LIVY_EXPORTER_ENDPOINT"]]
    (program.folder / "livy-exporter.env").write_text("\n".join(lines) + "\n", encoding="utf-8")
    line = read_block("crontab").splitlines()[-1]
    command = placed(re.sub(r"^(\S+ ){5}", "", line), program.folder)

    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": program.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert "livy_exporter_run_exit_code" in (program.folder / "livy.prom").read_text()
    assert program.run("verify", "sessions/").code == 0


@pytest.mark.parametrize("scheduler", ["crontab", "systemd", "kubernetes"])
def test_export_of_a_scheduler_may_be_repeated(scheduler: str, program: "Program") -> None:
    arguments = [placed(word, program.folder) for word in commands()[scheduler]]

    for _ in range(2):
        ended = program.run(*arguments)

        assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
    manifest = json.loads((program.folder / "sessions" / "_manifest.json").read_bytes())
    assert manifest["status"] == "complete"


def test_schedulers_run_the_same_export() -> None:
    def words(scheduler: str) -> set[str]:
        everywhere = {
            word.replace("/data/", "/var/lib/livy-exporter/") for word in commands()[scheduler]
        }
        return everywhere - {"--log-format", "json"}

    assert words("crontab") == words("systemd") == words("kubernetes")


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="there is no systemd-analyze")
def test_systemd_takes_service_and_timer(tmp_path: Path) -> None:
    names = []
    for kind in ("service", "timer"):
        unit = tmp_path / f"livy-exporter.{kind}"
        text = placed(read_block(f"systemd {kind}"), tmp_path).replace("User=livy\n", "")
        unit.write_text(text, encoding="utf-8")
        names.append(str(unit))

    ended = subprocess.run(
        [str(SYSTEMD_ANALYZE), "verify", *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )

    assert ended.returncode == 0, ended.stderr
    assert "Unknown" not in ended.stderr


def test_metrics_of_the_readme_are_those_of_a_run(program: "Program") -> None:
    rows = README.partition("\n| metric | tells |\n")[2].partition("\n\n")[0]

    ended = program.run(
        "export", "--workspace", "all", "-o", "o.parquet", "--metrics-file", "livy.prom"
    )

    text = (program.folder / "livy.prom").read_text(encoding="utf-8")
    written = set(re.findall(r"^(livy_exporter_\w+)\{", text, re.MULTILINE))
    assert ended.code == 0
    assert set(re.findall(r"`(livy_exporter_\w+)", rows)) == written
    assert set(re.findall(r"livy_exporter_\w+", read_block("alerts"))) <= written


@pytest.mark.parametrize("marker", ["newest versions", "newest versions in Spark"])
def test_newest_version_of_a_session_is_that_of_the_latest_run(
    marker: str, program: "Program"
) -> None:
    """DuckDB speaks for Spark, too, but for the name of what is read."""
    flags = ("--workspace", "w-1", "--incremental", "--output", "sessions/", "-q")
    folder = program.folder / "sessions"
    first = program.run("export", *flags)
    # Without its state, the next run adds all sessions once more.
    (folder / "_exporter/state.json").unlink()
    second = program.run("export", *flags)
    parts = f"{folder}/*.parquet"
    query = re.sub(
        r"'/data/sessions/\*\.parquet'|parquet\.`/data/sessions/`", f"'{parts}'", read_block(marker)
    )

    newest = duckdb.sql(query.rstrip().rstrip(";"))

    row_count, latest = (
        duckdb.read_parquet(parts).aggregate("count(*), max(exported_at)").fetchall()[0]
    )
    assert (first.code, second.code) == (0, 0), second.stderr
    assert row_count == 2 * 935
    assert newest is not None
    assert newest.aggregate("count(*), min(exported_at)").fetchall() == [(935, latest)]


def test_query_by_the_manifest_reads_its_parts_and_no_others(program: "Program") -> None:
    for _ in range(2):
        assert program.run("export", "--workspace", "w-1", "-q", "-o", "sessions/").code == 0
    folder = program.folder / "sessions"
    (part,) = folder.glob("part-*.parquet")
    shutil.copy(part, folder / "shown-and-not-published.parquet")

    with duckdb.connect() as connection:
        for statement in placed(read_block("by the manifest"), program.folder).split(";")[:-1]:
            connection.execute(statement)
        (row,) = connection.fetchall()

    manifest = json.loads((folder / "_manifest.json").read_bytes())
    assert row == (manifest["session_count"],)
