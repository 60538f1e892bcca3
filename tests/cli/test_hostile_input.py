"""Any flags, keys and variables: one error, one hint, the right code, and no waiting.

In this process, up to where an export would ask the service; the named cases as a program, too.
"""

import gc
import os
import socket
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Never

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import exporter.cli.demo
import exporter.cli.emulate
import exporter.runs.export
import exporter.runs.plan
from exporter.cli.main import main
from exporter.cli.parser import ALL_GROUPS, SERVICE_GROUPS
from exporter.errors import ExporterError
from exporter.settings.fields import Field, read_fields
from tests.support.examples import scale_examples, thin_out
from tests.support.program import Program

REACHED: Final = 77
"""The code of a run that was let through to where it would ask the service."""

FIELDS: Final = read_fields()
MANY_DIGITS: Final = "9" * 400
LONG: Final = "n" * 300


class ReachedServiceError(ExporterError):
    exit_code = REACHED


def stop(*_: object, **__: object) -> Never:
    raise ReachedServiceError("the service would be asked", hint="none")


@pytest.fixture(autouse=True)
def _no_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(exporter.runs.export, "connect", stop)
    monkeypatch.setattr(exporter.runs.plan, "connect", stop)
    monkeypatch.setattr(exporter.cli.demo, "open_emulator", stop)
    monkeypatch.setattr(exporter.cli.emulate, "open_emulator", stop)
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"


@dataclass(frozen=True)
class Said:
    code: int
    stdout: str
    stderr: str

    def assert_reported(self, *codes: int) -> None:
        """As errors are: in two lines, of a length that can be read."""
        assert self.code in codes, self.stderr
        assert self.stdout == ""
        lines = self.stderr.splitlines()
        warned, lines = lines[:-2], lines[-2:]
        assert [line.partition(": ")[0] for line in lines] == ["error", "hint"], self.stderr
        assert all(line.startswith("warning: ") for line in warned)
        steering = [char for line in lines for char in line if not is_shown(char)]
        assert steering == []
        assert len(lines[0]) < 1000
        assert "internal error" not in self.stderr


ENVIRON: Final = {
    "PATH": os.environ["PATH"],
    "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
    "AWS_EC2_METADATA_DISABLED": "true",
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret",
    "LIVY_EXPORTER_REGION": "cn-hangzhou",
    "LIVY_EXPORTER_PROGRESS": "none",
}


@contextmanager
def working_in(folder: str, environ: Mapping[str, str]) -> Iterator[None]:
    former_folder, former = Path.cwd(), dict(os.environ)
    os.environ.clear()
    os.environ.update({**ENVIRON, "HOME": folder, **environ})
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(former_folder)
        os.environ.clear()
        os.environ.update(former)


Run = Callable[..., Said]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in a folder of its own; `files` are written there first."""

    def run(
        *words: str,
        environ: Mapping[str, str] | None = None,
        prepare: Callable[[Path], object] = lambda _: None,
    ) -> Said:
        with tempfile.TemporaryDirectory() as folder, working_in(folder, environ or {}):
            prepare(Path(folder))
            capfd.readouterr()
            code = main(words)
            said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return run


EXPORT: Final = ("export", "--workspace=w-1", "--output=out.parquet")

HOSTILE: Final = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "-",
            "--",
            "---",
            "-x",
            "--output",
            "=",
            ",",
            "w-1,,w-2",
            ".",
            "..",
            "/",
            "\n",
            "a\nb",
            "a\r\nerror: b",
            "\u2028",
            "\x1b[2J",
            "\x00",
            "a\x00b",
            "\x7f",
            "\u202eevil",
            "\ud800",
            "\udcff.parquet",
            "用户",
            "it's",
            '"',
            "'\"",
            "{}",
            "%s",
            "%(prog)s",
            "$HOME",
            "~",
            "x" * 200,
            LONG,
            LONG + ".parquet",
            "x" * 5000,
            "x/" * 3000,
            "a b " * 2000,
            "'" * 300,
            "\n" * 300,
            "\udcff" * 300,
            MANY_DIGITS,
            "9" * 5000,
            "-" + MANY_DIGITS,
            MANY_DIGITS + "h",
            MANY_DIGITS + "TiB",
            "0." + MANY_DIGITS,
            "1e400",
            "1e-400",
            "-1",
            "0",
            "1e3",
            "0x10",
            "1_0",
            "nan",
            "inf",
            "-inf",
            "NaNs",
            "١٢",
            "\uff11\uff12",
            "²",
            "true",
            "null",
            "[]",
            "https://",
            "https://a..b",
            "https://" + LONG,
            "https://" + "a." * 200,
            "https://h:0",
            "https://h:65536",
            "https://h:99999",
            "https://[::::]",
            "https://[1:2]",
            "https://u:p@h",
            "http://127.0.0.1:99999",
            "http://[::1]:0",
            "s3://",
            "s3://B",
            "s3://" + "b" * 100 + "/k",
            "s3://bucket/" + LONG * 4,
            "oss://bucket/a//b",
            "oss://bucket/\udcff",
            "gs://b/\n",
            "iceberg://",
            "iceberg://a",
            "file:///x",
            "xx://y",
            "0000-00-00",
            "9999-12-31T23:59:60Z",
            "2026-02-30",
            "0001-01-01T00:00:00+23:59",
        ]
    ),
    st.text(max_size=30).filter(lambda text: "/" not in text and not text.startswith("@")),
)
"""Texts that are wrong nearly everywhere; none that would write outside of the working folder."""

ENDS: Final = (0, 2, REACHED)


def allowed_codes(field: Field | None) -> tuple[int, ...]:
    """Usage, or what only the disk or the profiles can tell."""
    if field is None or field.option.completes == "file":
        return (1, *ENDS)
    return (3, *ENDS) if field.name == "profile" else ENDS


def assert_ends_well(said: Said, codes: Sequence[int]) -> None:
    if said.code == 0:
        assert said.stderr == ""
    else:
        said.assert_reported(*codes)


COMMANDS: Final = {
    "export": (EXPORT, ALL_GROUPS),
    "plan": (("plan", "--workspace=w-1"), ALL_GROUPS),
    "gateways": (("gateways",), SERVICE_GROUPS),
    "config show": (("config", "show"), ALL_GROUPS),
}

OFTEN = settings(
    max_examples=scale_examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
TEXT_FIELDS: Final = [field for field in FIELDS if field.kind not in {"switch", "count"}]


@pytest.mark.parametrize("field", TEXT_FIELDS, ids=lambda field: field.name)
@OFTEN
@given(text=HOSTILE, command=st.sampled_from(["export", "config show"]))
@example(text="--", command="export")
@example(text="\udcff", command="export")
@example(text="a\x00b", command="export")
@example(text=LONG, command="export")
@example(text=MANY_DIGITS, command="export")
def test_flag_of_any_text_ends_well(text: str, command: str, field: Field, run: Run) -> None:
    words, _ = COMMANDS[command]

    said = run(*words, f"{field.flag}={text}")

    assert_ends_well(said, allowed_codes(field))


@OFTEN
@given(
    text=HOSTILE,
    field=st.sampled_from(FIELDS),
    command=st.sampled_from(["plan", "gateways"]),
    as_json=st.booleans(),
)
def test_flag_of_any_text_ends_well_for_commands_that_only_read(
    text: str, field: Field, command: str, run: Run, *, as_json: bool
) -> None:
    words, groups = COMMANDS[command]
    if field.option.group not in groups:
        return

    said = run(*words, f"{field.flag}={text}", *(["--json"] if as_json else []))

    assert_ends_well(said, allowed_codes(field))


def fits_environment(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


VARIABLES: Final = (
    "LIVY_EXPORTER_CONFIG",
    "ALIBABA_CLOUD_ACCESS_KEY_ID",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    "ALIBABA_CLOUD_SECURITY_TOKEN",
    "ALIBABA_CLOUD_REGION_ID",
    "ALIBABA_CLOUD_PROFILE",
    "ALIBABA_CLOUD_CREDENTIALS_FILE",
    "HOME",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "NO_COLOR",
    "TERM",
    "COLUMNS",
)


@pytest.mark.parametrize("variable", [*(field.variable for field in FIELDS), *VARIABLES])
@settings(OFTEN, max_examples=scale_examples(12))
@given(
    text=HOSTILE.filter(fits_environment),
    command=st.sampled_from([EXPORT, ("config", "show")]),
)
@example(text=LONG, command=EXPORT)
@example(text="\udcff", command=EXPORT)
@example(text=MANY_DIGITS, command=EXPORT)
def test_variable_of_any_text_ends_well(
    text: str, command: tuple[str, ...], variable: str, run: Run
) -> None:
    environ = {variable: text}
    if variable == "ALIBABA_CLOUD_CREDENTIALS_FILE":
        environ |= {"ALIBABA_CLOUD_ACCESS_KEY_ID": "", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ""}

    said = run(*command, environ=environ)

    if said.code != 0 and "--log-format" not in command and text != "json":
        said.assert_reported(1, 3, 2, REACHED)


S3_KEY: Final = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("variable", "text", "code"),
    [
        ("AWS_ENDPOINT_URL", "nonsense", 2),
        ("AWS_ENDPOINT_URL", "http://", 2),
        ("AWS_ENDPOINT_URL", "ftp://host", 2),
        ("AWS_ENDPOINT_URL", f"http://{LONG}", 2),
        ("AWS_ENDPOINT_URL", "http://h:99999", 2),
        ("AWS_ENDPOINT_URL", "http://h:0", 2),
        ("AWS_ENDPOINT_URL", "http://[1:2]", 2),
        ("AWS_ENDPOINT_URL", "http://a\nb", 2),
        ("AWS_ENDPOINT_URL", "\udcff", 2),
        ("AWS_ENDPOINT_URL_S3", "https://me:hunter2@host/?q", 2),
        ("AWS_REGION", "a\nb", 2),
        ("AWS_REGION", "\udcff", 2),
        ("AWS_DEFAULT_REGION", LONG, 2),
        ("AWS_ACCESS_KEY_ID", "a\udcff", 3),
        ("AWS_SECRET_ACCESS_KEY", "hunter2\n", 3),
        ("AWS_SESSION_TOKEN", "hunter2\u7528", 3),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_variable_of_an_object_store_is_refused_before_it_is_asked(
    variable: str, text: str, code: int, run: Run
) -> None:
    said = run(
        *("export", "--workspace=w-1", "--output=s3://bucket/out.parquet"),
        environ={**S3_KEY, variable: text},
    )

    said.assert_reported(code)
    assert "hunter2" not in said.stderr


NAMES: Final = st.text(st.characters(exclude_characters="=\0"), max_size=30).filter(
    fits_environment
)


@OFTEN
@given(name=NAMES)
def test_unknown_variable_is_reported(name: str, run: Run) -> None:
    if any(field.variable == f"LIVY_EXPORTER_{name}" for field in FIELDS) or name == "CONFIG":
        return

    run("config", "show", environ={f"LIVY_EXPORTER_{name}": "1"}).assert_reported(2)


TOML_VALUES: Final = st.one_of(
    st.sampled_from(
        [
            "",
            "[]",
            "{}",
            "[[]]",
            "[1, 2]",
            '["", "a"]',
            "true",
            "nan",
            "inf",
            "-inf",
            "-1",
            "0",
            "1e400",
            MANY_DIGITS,
            "9" * 5000,
            "0x" + "f" * 5000,
            "0b1",
            "1979-05-27",
            "07:32:00",
            "1979-05-27T07:32:00Z",
            '"\\u0000"',
            '"\\u2028"',
            '"' + "x" * 5000 + '"',
            '"""\n\n"""',
            "{ a = { b = 1 } }",
            "[" * 250 + "]" * 250,
            "[" * 3000 + "]" * 3000,
            "{a=" * 250 + "1" + "}" * 250,
            "{a=" * 3000 + "1" + "}" * 3000,
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


def writing(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize("field", thin_out(FIELDS, 3), ids=lambda field: field.name)
@settings(OFTEN, max_examples=scale_examples(12))
@given(value=TOML_VALUES)
@example(value="0x" + "f" * 5000)
@example(value="[" * 3000 + "]" * 3000)
@example(value='"\\u0000"')
def test_key_of_any_value_ends_well(value: str, field: Field, run: Run) -> None:
    content = f"{field.name} = {value}\n".encode()

    said = run("export", "--config=livy.toml", prepare=writing("livy.toml", content))

    if "://" not in value:
        said.assert_reported(1, 2, 3, REACHED)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"page_size = 5 # \xff",
        b"\x00",
        b"a" * (2 << 20),
        b"# " + b"x" * (2 << 20),
        b"page_size = [" + b"[" * 100_000,
        b"page_size." + b"a." * 100_000 + b"a = 1",
        b"[" + b"a." * 50_000 + b"a]",
        b"x = 1\n" * 2,
        b'"a\\nb" = 1',
        b'"' + b"k" * 5000 + b'" = 1',
    ],
    ids=range(11),
)
@pytest.mark.parametrize(
    "command", [["config", "show", "--config=it.toml"], ["emulate", "--scenario=it.toml"]]
)
def test_toml_file_of_any_bytes_is_refused(content: bytes, command: list[str], run: Run) -> None:
    run(*command, prepare=writing("it.toml", content)).assert_reported(2)


SCENARIO_KEYS: Final = (
    "seed",
    "session_count",
    "gateway_count",
    "latency_s",
    "clock_offset_s",
    "quota.rate_per_s",
    "newest_created_at",
    "workspaces",
    "faults",
    "churn.insertions.per_s",
    "nonsense",
)


@OFTEN
@given(key=st.sampled_from(SCENARIO_KEYS), value=TOML_VALUES)
def test_scenario_of_any_value_ends_well(key: str, value: str, run: Run) -> None:
    content = f"{key} = {value}\n".encode()

    said = run("emulate", "--scenario=it.toml", prepare=writing("it.toml", content))

    said.assert_reported(2, REACHED)


EMULATE_FLAGS: Final = (
    "--port",
    "--from",
    "--scenario",
    "--sessions",
    "--gateways",
    "--latency",
    "--jitter",
    "--seed",
)


@pytest.mark.parametrize("flag", EMULATE_FLAGS)
@OFTEN
@given(text=HOSTILE)
@example(text="--")
@example(text="999999999999")
@example(text="a\x00b")
def test_emulator_flag_of_any_text_ends_well(text: str, flag: str, run: Run) -> None:
    run("emulate", f"{flag}={text}").assert_reported(2, REACHED)


@OFTEN
@given(text=HOSTILE)
@example(text="a\x00b")
@example(text=LONG)
@example(text="\udcff")
def test_demo_in_a_folder_of_any_name_ends_well(text: str, run: Run) -> None:
    run("demo", f"--directory={text}", "--progress=none").assert_reported(1, 2, REACHED)


@OFTEN
@given(text=HOSTILE, as_json=st.booleans())
def test_verify_of_any_name_ends_well(text: str, run: Run, *, as_json: bool) -> None:
    said = run("verify", *(["--json"] if as_json else []), "--", text)

    lines = [line.partition(": ")[0] for line in said.stderr.splitlines()]
    assert said.code in (1, 2, 3), said.stderr
    assert lines == ["error", "hint"]
    assert "internal error" not in said.stderr


@OFTEN
@given(words=st.lists(HOSTILE, min_size=1, max_size=4))
def test_words_of_any_kind_end_well(words: list[str], run: Run) -> None:
    assert_ends_well(run(*words), ENDS)


@OFTEN
@given(shell=HOSTILE)
def test_completion_of_any_shell_ends_well(shell: str, run: Run) -> None:
    run(f"--show-completion={shell}").assert_reported(2)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)  # shorter than the whole path, which may be too long for one


ODD: Final[Mapping[str, Callable[[Path], object]]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([*EXPORT, "--metrics-file=odd"], "odd"),
        ([*EXPORT, "--manifest=odd"], "odd"),
        (["export", "--workspace=w-1", "--output=d/", "--state=odd"], "odd"),
        (["export", "--workspace=w-1", "--output=d/", "--state=odd", "--incremental"], "odd"),
        ([*EXPORT, "--config=odd"], "odd"),
        (["config", "show", "--config=odd"], "odd"),
        (["emulate", "--from=odd.ndjson"], "odd.ndjson"),
        (["emulate", "--from=odd.ndjson.gz"], "odd.ndjson.gz"),
        (["emulate", "--from=odd.ndjson.zst"], "odd.ndjson.zst"),
        (["emulate", "--scenario=odd"], "odd"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_special_file_is_refused_in_place_of_a_file(
    words: list[str], name: str, kind: str, run: Run
) -> None:
    run(*words, prepare=lambda folder: ODD[kind](folder / name)).assert_reported(2)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_verify_refuses_a_special_file(kind: str, run: Run) -> None:
    run(
        "verify", "odd.parquet", prepare=lambda folder: ODD[kind](folder / "odd.parquet")
    ).assert_reported(2)


@pytest.mark.parametrize("name", ["out.parquet.manifest.json", ".out.parquet.publishing.json"])
def test_pipe_in_the_place_of_a_run_s_own_file_is_refused(name: str, run: Run) -> None:
    run(*EXPORT, prepare=lambda folder: os.mkfifo(folder / name)).assert_reported(1, 2)


def test_working_folder_whose_name_is_no_utf8_does_no_harm(run: Run) -> None:
    def enter(folder: Path) -> None:
        odd = os.fsencode(folder) + b"/\xff"
        os.mkdir(odd)  # noqa: PTH102 - bytes
        os.chdir(odd)

    for output in ("out.parquet", "d/", "out.ndjson"):
        said = run(
            "export", "--workspace=w-1", f"--output={output}", "--incremental=", prepare=enter
        )
        said.assert_reported(2, REACHED)
        run("export", "--workspace=w-1", f"--output={output}", prepare=enter).assert_reported(
            REACHED
        )


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    "words",
    [
        ["export", "--config", "\udcff\udcfe.toml"],
        ["export", "--workspace=--", "-o", "out.parquet"],
        ["export", "--workspace", "w-1", "--gateway=--", "-o", "out.parquet"],
        ["export", "--workspace", "w-1", "-o", f"{LONG}.parquet"],
        ["export", "--workspace", "w-1", "-o", f"{LONG}/"],
        [*EXPORT, "--endpoint", f"https://{LONG}.com"],
        [*EXPORT, "--endpoint", f"https://{'a' * 64}.com"],
        [*EXPORT, "--target-file-size", MANY_DIGITS],
        [*EXPORT, "--metrics-file", "pipe"],
        [*EXPORT, "--metrics-file", "/dev/zero"],
        ["demo", "--directory", LONG],
        ["demo", "--directory", "\udcff"],
    ],
    ids=lambda value: (
        " ".join(value)[-40:].encode("ascii", "replace").decode() if isinstance(value, list) else ""
    ),
)
def test_program_refuses_it_in_one_line(
    words: list[str], log_format: str, program: "Program"
) -> None:
    os.mkfifo(program.folder / "pipe")

    ended = program.run(*words, "--log-format", log_format)

    assert ended.code == 2
    assert ended.stdout == ""
    assert len(ended.stderr_lines) == (1 if log_format == "json" else 2), ended.stderr
    assert "internal error" not in ended.stderr
    assert sorted(path.name for path in program.folder.iterdir()) == ["pipe"]
