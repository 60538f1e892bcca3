"""Every refusal: its exit code, one line and its hint, nothing on stdout, nothing left behind."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from exporter.emulator.scenario import Scenario
from tests.support.forks import Ended
from tests.support.patience import HANG_S, wait_until
from tests.support.program import Program, ProgramFor

EXPORT = ("export", "--workspace", "w-1", "--output", "out.parquet")


def refuse(program: "Program", ended: "Ended", *, code: int, says: str, hints: str = "") -> None:
    """Asserts that a process was refused as all are."""
    assert ended.code == code, ended.stderr
    assert ended.stdout == ""
    assert len(ended.stderr_lines) == 2, ended.stderr
    error, hint = ended.stderr_lines
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert hints in hint
    assert not error.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "says", "hints"),
    [
        (["exprot"], "unknown command 'exprot'", "did you mean export?"),
        (["nonsense"], "unknown command 'nonsense'", "known: export, plan"),
        (["config"], "config needs", "config show"),
        (["config", "shw"], "unknown command 'shw'", "did you mean show?"),
        (["--nonsense"], "unknown argument '--nonsense'", "livy-exporter --help"),
        (["--show-completion", "fish"], "no completion for 'fish'", "known: bash, zsh, tcsh"),
        (["--show-completion"], "expected one argument", "--help"),
        (["export", "--pagesize", "5"], "unknown argument '--pagesize'", "--page-size?"),
        (["export", "--pagesize=5"], "unknown argument '--pagesize'", "--page-size?"),
        (["export", "--workspac", "w"], "unknown argument '--workspac'", "--workspace?"),
        (["export", "-x"], "unknown argument '-x'", "livy-exporter export --help"),
        (["export", "stray"], "unknown argument 'stray'", "livy-exporter export --help"),
        (["export", "--page-size"], "--page-size: expected one argument", "export --help"),
        (["export", "--quiet=yes"], "argument", "export --help"),
        ([*EXPORT, "--page-size", "0"], "--page-size '0': should be at least 1", "1 to 100"),
        ([*EXPORT, "--page-size", "101"], "--page-size '101': should be at most", "1 to 100"),
        ([*EXPORT, "--page-size", "1e2"], "--page-size '1e2': should be a whole", "1 to 100"),
        ([*EXPORT, "--concurrency", "0"], "--concurrency '0': should be at least", "1 to 1000"),
        ([*EXPORT, "--concurrency", "-1"], "--concurrency '-1': should be", "1 to 1000"),
        ([*EXPORT, "--timeout", "soon"], "--timeout 'soon': should be a duration", "timeout"),
        ([*EXPORT, "--retries", "many"], "--retries 'many': should be a whole", "0 to 100"),
        ([*EXPORT, "--format", "csv"], "--format 'csv': should be", "known: parquet, ndjson"),
        ([*EXPORT, "--format", "parque"], "--format 'parque': should", "did you mean parquet?"),
        ([*EXPORT, "--compression", "zip"], "--compression 'zip': should", "gzip"),
        ([*EXPORT, "--progress", "fancy"], "--progress 'fancy': should", "plain"),
        ([*EXPORT, "--network", "private"], "--network 'private': should", "public"),
        ([*EXPORT, "--workspace", ""], "--workspace 'w-1,': should not be empty", "workspace"),
        ([*EXPORT, "--gateway", ""], "--gateway '': should not be empty", "gateway"),
        ([*EXPORT, "--region", "Hangzhou"], "'Hangzhou' is no region id", "cn-hangzhou"),
        ([*EXPORT, "--endpoint", "emr"], "'emr' is no endpoint", "https://HOST:PORT"),
        ([*EXPORT, "--endpoint", "http://10.0.0.1"], "in clear", "https://"),
        ([*EXPORT, "--endpoint", "https://me:pw@h"], "'***@h' is no endpoint", "https://"),
        (["export", "--output", "out.parquet"], "no workspace", "--workspace"),
        (["export", "--workspace", "w-1"], "no output", "--output"),
        (["plan"], "no workspace", "--workspace"),
        (["export", "--workspace", "w-1", "-o", "out.csv"], "tells no format", "--format"),
        (["export", "--workspace", "w-1", "-o", "out.parquet.gz"], "compressed inside", "zstd"),
        (["export", "--workspace", "w-1", "-o", "hdfs://b/k.parquet"], "not supported", "local"),
        ([*EXPORT, "--manifest", "out.parquet"], "cannot go to 'out.parquet'", "another file"),
        ([*EXPORT, "--config", "no.toml"], "cannot read 'no.toml': No such file", "config show"),
        ([*EXPORT, "--config", "."], "cannot read '.': Is a directory", "config show"),
        ([*EXPORT, "--config", ""], "cannot read ''", "config show"),
        (["emulate", "--port", "70000"], "no port 70000", "65535"),
        (["emulate", "--port", "http"], "--port 'http': should be a whole number", "--port"),
        (["emulate", "--sessions", "-5"], "--sessions '-5': should be a whole", "--sessions"),
        (["emulate", "--latency", "slow"], "--latency 'slow': should be a duration", "20ms"),
        (["emulate", "--from", "no.ndjson"], "cannot read 'no.ndjson'", "export"),
        (["emulate", "--from", "a.ndjson", "--seed", "2"], "--seed has no meaning", "--seed"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_usage_is_refused(arguments: list[str], says: str, hints: str, program: "Program") -> None:
    ended = program.run(*arguments)

    refuse(program, ended, code=2, says=says, hints=hints if hints != "zstd" else "")
    assert program.listing() == {}


@pytest.mark.parametrize(
    ("toml", "says", "hints"),
    [
        ("page_size = ", "'livy.toml' is no TOML: ", "config show"),
        ("page_size = 1\npage_size = 2", "'livy.toml' is no TOML: ", "config show"),
        ("pagesize = 5", "unknown key 'pagesize' in livy.toml", "did you mean page_size?"),
        ("[export]\nregion = 'cn-a'", "unknown key 'export' in livy.toml", "known: "),
        ("page_size = 0", "page_size = 0 in livy.toml: should be at least 1", "1 to 100"),
        ("page_size = true", "page_size = True in livy.toml: should be a number", "1 to 100"),
        ('gateway = "lc-a"', "in livy.toml: should be a list", "gateway"),
        ("gateway = []", "in livy.toml: should not be empty", "gateway"),
    ],
)
def test_file_is_refused(toml: str, says: str, hints: str, program: "Program") -> None:
    (program.folder / "livy.toml").write_text(toml, encoding="utf-8")
    before = program.listing()

    ended = program.run(*EXPORT, "--config", "livy.toml")

    refuse(program, ended, code=2, says=says, hints=hints)
    assert program.listing() == before


@pytest.mark.parametrize(
    ("variable", "value", "says", "hints"),
    [
        ("LIVY_EXPORTER_PAGESIZE", "5", "unknown environment variable", "_PAGE_SIZE?"),
        ("LIVY_EXPORTER_PAGE_SIZE", "0", "LIVY_EXPORTER_PAGE_SIZE='0': should", "1 to 100"),
        ("LIVY_EXPORTER_QUIET", "perhaps", "should be true or false", "quiet"),
        ("LIVY_EXPORTER_CONFIG", "no.toml", "cannot read 'no.toml'", "config show"),
    ],
)
def test_environment_is_refused(
    variable: str, value: str, says: str, hints: str, program: "Program"
) -> None:
    ended = program.run(*EXPORT, environ={variable: value})

    refuse(program, ended, code=2, says=says, hints=hints)
    assert program.listing() == {}


def test_no_region_is_refused(program: "Program") -> None:
    ended = program.run(*EXPORT, environ={"LIVY_EXPORTER_REGION": ""})

    refuse(program, ended, code=2, says="no region", hints="--region")


@pytest.mark.parametrize(
    ("output", "says", "hints"),
    [
        ("no/such/out.parquet", "No such file or directory", "mkdir -p no/such"),
        ("livy.toml/out.parquet", "Not a directory", "livy.toml is a file"),
        ("/sys/out.parquet", "cannot write '/sys/out.parquet'", "another"),
        ("folder", "'folder' holds something else", "folder/sessions.parquet"),
        ("folder/", "'folder' holds something else", "folder/sessions.parquet"),
        ("no/such/", "No such file or directory", "mkdir -p no"),
        ("/dev/full/out.parquet", "Not a directory", "/dev/full is a file"),
    ],
    ids=lambda value: value[:30],
)
def test_output_that_cannot_be_written_is_refused_before_a_request(
    output: str, says: str, hints: str, program: "Program"
) -> None:
    (program.folder / "livy.toml").touch()
    (program.folder / "folder").mkdir()
    (program.folder / "folder" / "notes.txt").touch()
    before = program.listing()
    nowhere = {"LIVY_EXPORTER_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}

    ended = program.run(
        "export", "--workspace", "w-1", "-o", output, "--format", "parquet", environ=nowhere
    )

    refuse(program, ended, code=1, says=says, hints=hints)
    assert program.listing() == before


@pytest.mark.parametrize(
    ("length", "says", "hints"),
    [(300, "should have no name over 255 bytes", "output"), (240, "File name too long", "shorten")],
)
def test_output_of_a_name_too_long_is_refused(
    length: int, says: str, hints: str, program: "Program"
) -> None:
    ended = program.run("export", "--workspace", "w-1", "-o", f"{'n' * length}.parquet")

    refuse(program, ended, code=2, says=says, hints=hints)
    assert program.listing() == {}


def test_manifest_that_cannot_be_written_is_refused(program: "Program") -> None:
    ended = program.run(*EXPORT, "--manifest", "no/such/manifest.json")

    refuse(program, ended, code=1, says="'no/such/manifest.json'", hints="mkdir -p no/such")
    assert program.listing() == {}


def test_full_device_ends_an_export(program: "Program") -> None:
    ended = program.run(
        "export", "--workspace", "w-1", "-o", "/dev/full", "--format", "ndjson", "-q"
    )

    refuse(program, ended, code=1, says="'/dev/full': No space left on device", hints="free some")
    assert program.listing() == {}


UNCOMPILED = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Python, too, would cut off what it compiles, and believe it the next time."""


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize("name", ["out.parquet", "out.ndjson", "out.ndjson.gz", "out.ndjson.zst"])
def test_file_that_may_not_grow_leaves_the_former_output(name: str, program: "Program") -> None:
    program.run("export", "--workspace", "w-2", "--output", name)
    before = program.listing()

    ended = program.run(
        *("export", "--workspace", "w-1", "--output", name, "-q"),
        environ=UNCOMPILED,
        preexec=limit_file_size,
    )

    refuse(program, ended, code=1, says=f"cannot write '{name}': File too large", hints="ulimit")
    assert program.listing() == before


@pytest.fixture
def full_disk(program: "Program") -> Iterator[Path]:
    """A file system of 64 KiB, where the system lets us mount one."""
    path = program.folder / "disk"
    path.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=64k", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["/bin/umount", str(path)], check=True)


def test_full_disk_leaves_nothing_behind(full_disk: Path, program: "Program") -> None:
    ended = program.run("export", "--workspace", "w-1", "--output", "disk/out.ndjson", "-q")

    refuse(program, ended, code=1, says="No space left on device", hints="free some space")
    assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize("command", [["plan", "--workspace", "w-1"], ["gateways"], ["--help"]])
def test_full_stdout_is_reported(command: list[str], program: "Program") -> None:
    quoted = " ".join([sys.executable, "-m", "exporter", *command])

    ended = program.run(command=("/bin/sh", "-c", f"{quoted} > /dev/full"))

    refuse(program, ended, code=1, says="cannot write to stdout: No space left", hints="redirect")


@pytest.mark.parametrize(
    "command", [["plan", "--workspace", "w-1"], ["export", *EXPORT[1:3], "-o-"]]
)
def test_closed_stdout_is_reported(command: list[str], program: "Program") -> None:
    quoted = " ".join([sys.executable, "-m", "exporter", *command])

    ended = program.run(command=("/bin/sh", "-c", f"{quoted} >&-"))

    refuse(program, ended, code=1, says="stdout is closed", hints="redirect")


def test_closed_stderr_does_no_harm(program: "Program") -> None:
    quoted = " ".join([sys.executable, "-m", "exporter", *EXPORT])

    ended = program.run(command=("/bin/sh", "-c", f"{quoted} 2>&-"))

    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
    assert sorted(program.listing()) == ["out.parquet", "out.parquet.manifest.json"]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (["--workspace", "w-9"], "w-9"),
        (["--workspace", "w-1", "--workspace", "w-9"], "w-9"),
        (["--workspace", "w-1", "--gateway", "lc-9"], "lc-9"),
        (["--workspace", "w-1", "--gateway", "lc-a", "--gateway", "lc-9"], "lc-9"),
        (["--workspace", "all", "--gateway", "lc-9"], "lc-9"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("command", ["export", "plan"])
def test_unknown_workspace_or_gateway_is_refused(
    command: str, named: list[str], says: str, program: "Program"
) -> None:
    ended = program.run(command, *named, "--output", "out.parquet", "-q")

    refuse(program, ended, code=2, says=says, hints="livy-exporter gateways")
    assert program.listing() == {}


@pytest.mark.parametrize("command", ["export", "plan", "gateways"])
def test_missing_credentials_are_reported(command: str, program: "Program") -> None:
    nobody = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ""}
    output = ["--output", "out.parquet"] if command != "gateways" else []

    ended = program.run(command, "--workspace", "w-1", *output, environ=nobody)

    refuse(program, ended, code=3, says="no credentials", hints="ALIBABA_CLOUD_ACCESS_KEY_ID")
    assert program.listing() == {}


def test_half_a_key_is_reported(program: "Program") -> None:
    ended = program.run(*EXPORT, environ={"ALIBABA_CLOUD_ACCESS_KEY_SECRET": ""})

    refuse(program, ended, code=3, says="ALIBABA_CLOUD_ACCESS_KEY_SECRET is not", hints="both")
    assert program.listing() == {}


def test_unknown_profile_is_reported(program: "Program") -> None:
    ended = program.run(*EXPORT, "--profile", "nobody")

    refuse(program, ended, code=3, says="profile 'nobody'", hints="aliyun configure")
    assert program.listing() == {}


@pytest.mark.parametrize("gateways", [["lc-a"], ["lc-a", "lc-b"], ["all"]], ids=" ".join)
def test_wrong_secret_is_reported_once_and_not_repeated(
    gateways: list[str], program: "Program"
) -> None:
    named = [word for gateway in gateways for word in ("--gateway", gateway)]
    wrong = {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "hunter2"}

    ended = program.run(*EXPORT, *named, environ=wrong)

    refuse(program, ended, code=3, says="SignatureDoesNotMatch", hints="secret")
    assert "hunter2" not in ended.stderr
    assert program.listing() == {}


def test_security_token_of_another_key_is_reported_and_not_repeated(program: "Program") -> None:
    ended = program.run(*EXPORT, environ={"ALIBABA_CLOUD_SECURITY_TOKEN": "hunter2"})

    refuse(program, ended, code=3, says="InvalidSecurityToken", hints="token")
    assert "hunter2" not in ended.stderr


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("gateways", [[], ["--gateway", "lc-a", "--gateway", "lc-b"]])
def test_nothing_listening_is_reported(gateways: list[str], program: "Program") -> None:
    port = closed_port()

    ended = program.run(*EXPORT, *gateways, "--endpoint", f"http://127.0.0.1:{port}")

    refuse(program, ended, code=1, says=f"cannot connect to 127.0.0.1:{port}", hints="--endpoint")
    assert program.listing() == {}


def test_unknown_host_is_reported(program: "Program") -> None:
    ended = program.run(*EXPORT, "--endpoint", "https://emr.invalid")

    refuse(program, ended, code=1, says="emr.invalid", hints="--endpoint")
    assert program.listing() == {}


@contextlib.contextmanager
def answering(body: bytes, *, status: int = 200) -> Iterator[str]:
    """A server that says the same to whoever asks; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"<html>Welcome</html>", 200, "no JSON"),
        (b"<html>Sign in</html>", 302, "HTTP 302"),
        (b"<html>Not here</html>", 404, "HTTP 404"),
        (b"", 200, "an empty body"),
        (b"[1, 2]", 200, "JSON"),
        (b'{"requestId": "r-1"}', 200, ""),
        (b'{"totalCount": 5, "sess', 200, "no JSON"),
        (b"\x1b[2J\x1b]0;title\x07 <html>", 200, "no JSON"),
    ],
)
@pytest.mark.parametrize("gateway", ["lc-a", "all"])
def test_broken_answer_is_reported(
    body: bytes, status: int, says: str, gateway: str, program: "Program"
) -> None:
    with answering(body, status=status) as url:
        ended = program.run(*EXPORT, "--gateway", gateway, "--endpoint", url)

    refuse(program, ended, code=1, says=says, hints="--endpoint")
    assert "\x1b" not in ended.stderr
    assert program.listing() == {}


def test_message_of_a_server_does_not_steer_the_terminal(program: "Program") -> None:
    body = json.dumps(
        {"code": "Forbidden\x1b[31m", "message": "a\nb\x07\u009b31m", "requestId": "r\x1b"}
    )

    with answering(body.encode(), status=403) as url:
        ended = program.run(*EXPORT, "--gateway", "lc-a", "--endpoint", url)

    refuse(program, ended, code=3, says="Forbidden\\x1b[31m", hints="the identity needs")
    assert ended.stderr.isascii()
    assert all(char == "\n" or char.isprintable() for char in ended.stderr)


def test_words_of_the_user_do_not_break_the_line(program: "Program") -> None:
    ended = program.run("export", "--workspace", "w-1", "-o", "a\nb/c\x1b[31m.parquet")

    refuse(program, ended, code=1, says="a\\x0ab/c\\x1b[31m.parquet")


def test_reader_that_has_enough_ends_an_export_quietly(slow_program: "Program") -> None:
    process = slow_program.start(
        "export", "--workspace", "w-1", "--output", "-", "--progress", "none"
    )
    assert process.stdout is not None
    assert process.stderr is not None

    first = process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()

    assert json.loads(first)["computeId"] == "lc-b"
    assert process.wait(timeout=HANG_S) == 1
    assert stderr == b""
    assert slow_program.listing() == {}


@pytest.mark.parametrize(
    "command",
    [
        "export --workspace w-1 --output - -q",
        "plan --workspace all",
        "gateways --json",
        "config show",
        "config schema",
        "emulate",
        "--help",
        "--show-completion bash",
    ],
)
def test_reader_that_is_gone_ends_every_command_quietly(command: str, program: "Program") -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)

    ended = program.run(*command.split(), stdout=write_end)

    os.close(write_end)
    assert (ended.code, ended.stderr) == (1, "")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "out.parquet"],
        ["--output", "out.ndjson.gz", "--manifest", "copy.json"],
        ["--output", "out.parquet", "--log-format", "json"],
    ],
    ids=" ".join,
)
def test_interrupted_export_leaves_the_old_output(
    number: int, code: int, arguments: list[str], slow_program: "Program"
) -> None:
    (slow_program.folder / arguments[1]).write_bytes(b"the former output")
    before = slow_program.listing()
    slowly = ["--gateway", "lc-b", "--concurrency", "1", "--progress", "plain"]
    process = slow_program.start("export", "--workspace", "w-1", *arguments, *slowly)
    assert process.stderr is not None

    process.stderr.readline()  # the first sign of progress: the export is in its midst
    working = slow_program.listing()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=HANG_S)

    last = stderr.decode().splitlines()[-1]
    shown = json.loads(last)["message"] if "json" in arguments else last
    assert len(working) > len(before)
    assert process.returncode == code
    assert stdout == b""
    assert shown == "interrupted: nothing was published"
    assert b"Traceback" not in stderr
    assert "pages read are kept: the next run goes on" in stderr.decode()
    left = slow_program.listing()
    assert left.pop(f".{arguments[1]}.journal") != b""
    assert left == before


def test_interrupted_plan_does_not_mention_publishing(program_for: "ProgramFor") -> None:
    program, emulator = program_for(Scenario(latency_s=3600))
    process = program.start("plan", "--workspace", "all", "-vv")
    wait_until(lambda: emulator.stats().in_flight > 0)

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG_S)

    assert process.returncode == 130
    assert stderr.decode().splitlines()[-1] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [(["-vv"], {}), (["-v", "--verbose"], {}), ([], {"LIVY_EXPORTER_VERBOSE": "2"})],
)
@pytest.mark.parametrize(
    "failing",
    [["--workspace", "w-9"], ["--page-size", "0"], ["--nonsense"]],
    ids=" ".join,
)
def test_traceback_is_shown_to_who_asks_for_it(
    failing: list[str], arguments: list[str], environ: dict[str, str], program: "Program"
) -> None:
    ended = program.run("export", "-o", "out.parquet", *failing, *arguments, environ=environ)

    assert ended.code == 2
    assert ended.stderr.count("Traceback") >= 1
    assert ended.stderr.startswith("error: ")


def test_traceback_stays_json_among_json(program: "Program") -> None:
    ended = program.run(*EXPORT, "--workspace", "w-9", "-vv", "--log-format", "json")

    events = [json.loads(line) for line in ended.stderr_lines]
    assert "Traceback" in events[-1]["traceback"]


def test_failed_export_leaves_the_published_output(program: "Program") -> None:
    program.run(*EXPORT)
    before = program.listing()

    ended = program.run(*EXPORT, environ={"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "wrong"})

    assert ended.code == 3
    assert program.listing() == before


def test_demo_that_fails_leaves_no_folder(program: "Program") -> None:
    ended = program.run(
        "demo", "--directory", "fresh", "-q", environ=UNCOMPILED, preexec=limit_file_size
    )

    assert ended.code == 1
    assert "File too large" in ended.stderr
    assert program.listing() == {}


def test_demo_in_the_place_of_a_file_is_refused(program: "Program") -> None:
    (program.folder / "taken").touch()

    ended = program.run("demo", "--directory", "taken")

    refuse(program, ended, code=1, says="cannot make the folder 'taken'", hints="--directory")
