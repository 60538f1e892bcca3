import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.settings.annotations import format_size, parse_duration, parse_size
from exporter.settings.dump import build_json_schema, dump_toml
from exporter.settings.endpoints import build_endpoint, check_endpoint, check_region
from exporter.settings.fields import Field, read_fields
from exporter.settings.load import load_settings
from exporter.settings.settings import Settings

FIELDS = {field.name: field for field in read_fields()}


@dataclass(frozen=True)
class Written:
    """One value of a setting as each source writes it, and what it becomes."""

    toml: str
    text: str
    flag: object
    value: object


LOCAL = "2026-11-01T08:00:00+08:00"

# Three values a setting, none of them its default: one for the file, the environment and the flag.
TEXTS = [Written(f'"{word}"', word, word, word) for word in ("one", "two", "three")]
VALUES: dict[str, list[Written]] = {
    "profile": TEXTS,
    "region": [Written(f'"{id_}"', id_, id_, id_) for id_ in ("cn-one", "cn-two", "cn-three")],
    "endpoint": [
        Written(f'"{url}"', url, url, url)
        for url in ("https://one", "https://two:8443", "http://127.0.0.1:80/")
    ],
    "network": [Written('"vpc"', "vpc", "vpc", "vpc")] * 3,
    "workspace": [
        Written('["w-1"]', "w-1", ["w-1"], ("w-1",)),
        Written('["w-1", "w-2"]', "w-1, w-2", ["w-1", "w-2"], ("w-1", "w-2")),
        Written('["w-3", "w-4"]', "w-3,w-4", ["w-3,w-4"], ("w-3", "w-4")),
    ],
    "gateway": [
        Written('["lc-1"]', "lc-1", ["lc-1"], ("lc-1",)),
        Written('["lc-1", "lc-2"]', "lc-1,lc-2", ["lc-1", "lc-2"], ("lc-1", "lc-2")),
        Written('["lc-3"]', "lc-3", ["lc-3"], ("lc-3",)),
    ],
    "since": [Written(f'"{text}"', text, text, text) for text in ("7d", "2026-11-01", "12h")],
    "until": [
        Written("2026-11-01", "1d", "1d", "2026-11-01"),
        Written(f'"{LOCAL}"', LOCAL, LOCAL, LOCAL),
        Written('"90m"', "90m", "90m", "90m"),
    ],
    "output": TEXTS,
    "format": [Written(f'"{name}"', name, name, name) for name in ("ndjson", "parquet", "ndjson")],
    "storage_endpoint": [
        Written(f'"{url}"', url, url, url)
        for url in ("https://s3.one", "https://s3.two:9000", "http://127.0.0.1:9000")
    ],
    "storage_addressing": [Written('"path"', "path", "path", "path")] * 3,
    "partition_by": [
        Written('["dt"]', "dt", ["dt"], ("dt",)),
        Written('["dt", "queue"]', "dt, queue", ["dt", "queue"], ("dt", "queue")),
        Written(
            '["region_id", "state"]', "region_id,state", ["region_id,state"], ("region_id", "state")
        ),
    ],
    "target_file_size": [
        Written('"64MiB"', "67108864", "64 mib", 64 << 20),
        Written("500000000", "500MB", "0.5GB", 500_000_000),
        Written('"1GiB"', "1024MiB", "1gib", 1 << 30),
    ],
    "compression": [Written(f'"{name}"', name, name, name) for name in ("none", "lz4", "gzip")],
    "allow_incomplete": [Written("true", "true", True, True)] * 3,
    "allow_empty": [Written("true", "true", True, True)] * 3,
    "omit": [
        Written('["sparkConf"]', "sparkConf", ["sparkConf"], ("sparkConf",)),
        Written('["info", "extra"]', "info, extra", ["info", "extra"], ("info", "extra")),
        Written('["web_ui", "name"]', "web_ui,name", ["web_ui,name"], ("web_ui", "name")),
    ],
    "manifest": TEXTS,
    "wait": [
        Written('"90s"', "90", "1.5m", 90.0),
        Written("0", "0", "0s", 0.0),
        Written("600.0", "10m", "600", 600.0),
    ],
    "metrics_file": TEXTS,
    "incremental": [Written("true", "true", True, True)] * 3,
    "state": TEXTS,
    "settle": [
        Written('"2h"', "7200", "120m", 7200.0),
        Written("0", "0", "0s", 0.0),
        Written("90.0", "1.5m", "90", 90.0),
    ],
    "full_every": [
        Written('"7d"', "604800", "7d", 604_800.0),
        Written("90", "90", "90s", 90.0),
        Written('"1h"', "60m", "3600", 3600.0),
    ],
    "resume": [Written("false", "false", False, False)] * 3,
    "resume_within": [
        Written('"7d"', "604800", "7d", 604_800.0),
        Written("90", "90", "90s", 90.0),
        Written('"1h"', "60m", "3600", 3600.0),
    ],
    "keep_leftovers": [
        Written('"7d"', "604800", "7d", 604_800.0),
        Written("0", "0s", "0", 0.0),
        Written('"1h"', "60m", "3600", 3600.0),
    ],
    "spool": TEXTS,
    "page_size": [Written(str(n), str(n), str(n), n) for n in (1, 50, 99)],
    "concurrency": [Written(str(n), str(n), str(n), n) for n in (1, 500, 1000)],
    "max_rps": [Written(text, text, text, float(text)) for text in ("0.1", "50", "10000")],
    "timeout": [
        Written('"500ms"', "0.5", "500ms", 0.5),
        Written("12", "12", "12s", 12.0),
        Written("3600.0", "1h", "60m", 3600.0),
    ],
    "retries": [Written(str(n), str(n), str(n), n) for n in (0, 1, 100)],
    "patience": [
        Written('"20m"', "1200", "1200s", 1200.0),
        Written("90", "90", "90s", 90.0),
        Written("1.5", "1500ms", "1.5s", 1.5),
    ],
    "deadline": [
        Written('"2h"', "7200", "120m", 7200.0),
        Written("90", "90", "90s", 90.0),
        Written("1.5", "1500ms", "1.5s", 1.5),
    ],
    "progress": [Written(f'"{name}"', name, name, name) for name in ("bar", "plain", "none")],
    "log_format": [Written('"json"', "json", "json", "json")] * 3,
    "verbose": [Written(str(n), str(n), n, n) for n in (1, 2, 1)],
    "quiet": [Written("true", "1", True, True)] * 3,
}


def load(
    flags: dict[str, object] | None = None,
    *,
    environ: dict[str, str] | None = None,
    toml: str | None = None,
    folder: Path = Path(),
) -> Settings:
    path = None
    if toml is not None:
        path = folder / "livy.toml"
        path.write_text(toml, encoding="utf-8")
    loaded = load_settings(
        flags or {}, environ=environ or {}, config_file=None if path is None else str(path)
    )
    return loaded.settings


def test_every_setting_has_values_to_try() -> None:
    assert list(VALUES) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_default_is_left_by_nothing_given(name: str) -> None:
    settings = load()

    assert getattr(settings, name) == FIELDS[name].default


@pytest.mark.parametrize("name", FIELDS)
def test_file_beats_default(name: str, tmp_path: Path) -> None:
    for written in VALUES[name]:
        settings = load(toml=f"{name} = {written.toml}\n", folder=tmp_path)

        assert getattr(settings, name) == written.value != FIELDS[name].default


@pytest.mark.parametrize("name", FIELDS)
def test_environment_beats_file(name: str, tmp_path: Path) -> None:
    in_file, in_environment, _ = VALUES[name]

    settings = load(
        environ={FIELDS[name].variable: in_environment.text},
        toml=f"{name} = {in_file.toml}\n",
        folder=tmp_path,
    )

    assert getattr(settings, name) == in_environment.value


@pytest.mark.parametrize("name", FIELDS)
def test_flag_beats_environment_and_file(name: str, tmp_path: Path) -> None:
    in_file, in_environment, in_flag = VALUES[name]

    settings = load(
        {name: in_flag.flag},
        environ={FIELDS[name].variable: in_environment.text},
        toml=f"{name} = {in_file.toml}\n",
        folder=tmp_path,
    )

    assert getattr(settings, name) == in_flag.value


@pytest.mark.parametrize("name", ["allow_incomplete", "quiet"])
def test_switch_is_turned_off_again_by_its_no_flag(name: str, tmp_path: Path) -> None:
    settings = load({name: False}, toml=f"{name} = true\n", folder=tmp_path)

    assert getattr(settings, name) is False


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "True"])
def test_switch_in_the_environment_is_on_by(word: str) -> None:
    assert load(environ={"LIVY_EXPORTER_QUIET": word}).quiet is True


@pytest.mark.parametrize("field", FIELDS.values(), ids=str)
def test_empty_variable_is_a_variable_that_is_not_set(field: Field) -> None:
    assert getattr(load(environ={field.variable: ""}), field.name) == field.default


def test_file_is_named_by_the_environment_where_no_flag_names_one(tmp_path: Path) -> None:
    path = tmp_path / "livy.toml"
    path.write_text("page_size = 7", encoding="utf-8")

    loaded = load_settings({}, environ={"LIVY_EXPORTER_CONFIG": str(path)}, config_file=None)

    assert loaded.settings.page_size == 7


def test_variables_of_other_programs_are_left_alone() -> None:
    assert load(environ={"PAGE_SIZE": "0", "LIVY_PAGE_SIZE": "0"}) == Settings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("30s", 30.0), ("1.5 s", 1.5), ("250ms", 0.25), ("2m", 120.0), ("1h", 3600.0)],
)
def test_duration_is_a_number_of_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1..5s", "1 m s", "nan", "inf", "٣s"])
def test_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        ({"page_size": "0"}, "--page-size '0': should be at least 1", "page_size: sessions"),
        ({"page_size": "101"}, "--page-size '101': should be at most 100", "1 to 100"),
        ({"page_size": "ten"}, "--page-size 'ten': should be a whole number", "1 to 100"),
        ({"page_size": "1.5"}, "--page-size '1.5': should be a whole number", "1 to 100"),
        ({"concurrency": "0"}, "--concurrency '0': should be at least 1", "1 to 1000"),
        ({"timeout": "0"}, "--timeout '0': should be at least 0.001", "one request"),
        (
            {"partition_by": ["dt,color"]},
            "--partition-by 'dt,color': should be 'dt', ",
            "known: dt, ",
        ),
        ({"partition_by": ["stat"]}, "--partition-by 'stat': should be 'dt', ", "mean state?"),
        ({"partition_by": ["dt,dt"]}, "--partition-by 'dt,dt': names dt twice", "queue"),
        ({"target_file_size": "big"}, "--target-file-size 'big': should be a size", "64MiB"),
        ({"target_file_size": "1kB"}, "--target-file-size '1kB': should be 1MiB to 64GiB", "64MiB"),
        ({"timeout": "soon"}, "--timeout 'soon': should be a duration", "one request"),
        ({"timeout": "2d"}, "--timeout '2d': should be at most 86400", "one request"),
        ({"retries": "-1"}, "--retries '-1': should be at least 0", "0 to 100"),
        (
            {"format": "parquett"},
            "should be 'parquet', 'ndjson', 'arrow', 'delta', ",
            "mean parquet?",
        ),
        ({"format": "xls"}, "--format 'xls': should be", "known: parquet, ndjson"),
        ({"region": ""}, "--region '': should not be empty", "region:"),
        ({"workspace": [""]}, "--workspace '': should not be empty", "workspace:"),
        ({"gateway": ["lc-1", ""]}, "--gateway 'lc-1,': should not be empty", "gateway:"),
        ({"output": "\udcff"}, "--output '\\udcff': should be text", "output:"),
    ],
)
def test_wrong_flag_is_reported_with_its_value(
    flags: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(flags)

    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_wrong_variable_is_reported_by_its_name() -> None:
    with pytest.raises(UsageError, match=r"^LIVY_EXPORTER_QUIET='maybe': should be true or false$"):
        load(environ={"LIVY_EXPORTER_QUIET": "maybe"})


@pytest.mark.parametrize(
    ("line", "should"),
    [
        ('page_size = "ten"', "a whole number"),
        ("page_size = true", "a number"),
        ("page_size = 1.5", "a whole number"),
        ("timeout = true", "a number"),
        ("timeout = nan", "at most 86400"),
        ("region = 5", "text"),
        ('workspace = "w-1"', 'a list, such as ["w-1", "w-2"]'),
        ("workspace = [1]", "text"),
        ('workspace = [""]', "not be empty"),
        ("gateway = []", "not be empty"),
        ('quiet = "sometimes"', "true or false"),
        ("verbose = 3", "at most 2"),
        ('format = "csv"', "'parquet', 'ndjson', 'arrow', 'delta', 'iceberg' or 'paimon'"),
        ("network = 1", "'public' or 'vpc'"),
        ("region = { id = 1 }", "text"),
    ],
)
def test_wrong_type_in_the_file_is_reported_with_key_and_file(
    line: str, should: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        load(toml=line, folder=tmp_path)

    key = line.partition(" = ")[0]
    message = str(caught.value)
    assert message.startswith(f"{key} = ")
    assert f" in {tmp_path}/livy.toml: should " in message
    assert should in message
    assert "\n" not in message


def test_value_that_is_overridden_is_not_checked(tmp_path: Path) -> None:
    settings = load({"page_size": "5"}, toml="page_size = 0", folder=tmp_path)

    assert settings.page_size == 5


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("pagesize", "did you mean page_size?"),
        ("workspaces", "did you mean workspace?"),
        ("Region", "did you mean region?"),
        ("nonsense", "known: profile, region,"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^unknown key '{key}' in ") as caught:
        load(toml=f"{key} = 1", folder=tmp_path)

    assert (caught.value.hint or "").startswith(hint)


def test_table_in_the_file_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown key 'export'"):
        load(toml="[export]\npage_size = 5", folder=tmp_path)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("LIVY_EXPORTER_PAGESIZE", "did you mean LIVY_EXPORTER_PAGE_SIZE?"),
        ("LIVY_EXPORTER_CONFIG_FILE", "did you mean LIVY_EXPORTER_CONFIG?"),
    ],
)
def test_unknown_variable_names_the_nearest(variable: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"^unknown environment variable {variable}$") as caught:
        load(environ={variable: "1"})

    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"page_size", "' is no TOML: "),
        (b"page_size = 1\npage_size = 2", "' is no TOML: "),
        (b"\xff", "' is no TOML: "),
        (None, "^cannot read '.*': No such file or directory$"),
    ],
)
def test_unreadable_file_is_reported(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "livy.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=message) as caught:
        load_settings({}, environ={}, config_file=str(path))

    assert "\n" not in str(caught.value)
    assert caught.value.hint == "`livy-exporter config show` prints a file with every key"


def test_empty_name_of_the_file_is_no_missing_name() -> None:
    with pytest.raises(UsageError, match="cannot read ''"):
        load_settings({}, environ={}, config_file="")


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("https://emr.example", "https://emr.example"),
        ("https://emr.example/", "https://emr.example"),
        ("HTTPS://EMR.example:8443", "https://emr.example:8443"),
        ("https://emr.example:443", "https://emr.example"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://localhost:80/", "http://localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_endpoint_is_a_scheme_a_host_and_a_port(given: str, endpoint: str) -> None:
    assert check_endpoint(given) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "emr.example",
        "ftp://emr.example",
        "https://",
        "https://emr.example/path",
        "https://emr.example?query",
        "https://emr.example#part",
        "https://emr example",
        "https://emr.example\n",
        "https://[::1",
        "https://emr.example:port",
        "https://emr.example:0",
        "https://emr.example:65536",
        "https://emr.example:٣",
        "https://ёmr.example",
    ],
)
def test_endpoint_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"is no endpoint|no valid port"):
        check_endpoint(url)


@pytest.mark.parametrize(
    "host",
    [
        "emr.example",
        "10.0.0.1",
        "0.0.0.0",  # noqa: S104 - refused is the point
        "169.254.169.254",
        "[2001:db8::1]",
        "[::ffff:10.0.0.1]",
        "localhost.example",
        "127.0.0.1.example",
        "2130706433",
    ],
)
def test_plain_http_is_for_loopback_only(host: str) -> None:
    with pytest.raises(UsageError, match="in clear"):
        check_endpoint(f"http://{host}:8080")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@emr.example",
        "https://hunter2@emr.example",
        "http://user:hunter2@127.0.0.1",
        "https://user:hunter2/@emr.example",
        "ftp://user:hunter2@emr.example",
        "https://emr.example?password=hunter2",
        "hunter2@emr.example",
    ],
)
def test_endpoint_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError, match="is no endpoint") as caught:
        check_endpoint(url)

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in (caught.value.hint or "")


def test_endpoint_and_region_are_checked_when_they_are_loaded() -> None:
    with pytest.raises(UsageError, match="in clear"):
        load({"endpoint": "http://emr.example"})
    with pytest.raises(UsageError, match="is no region id"):
        load({"region": "emr.example/"})


@pytest.mark.parametrize("region", ["cn-hangzhou", "us-east-1", "cn-shanghai-finance-1"])
def test_region_need_not_be_known(region: str) -> None:
    assert check_region(region) == region


@pytest.mark.parametrize("region", ["", "cn", "CN-hangzhou", "cn-hangzhou.evil.example", "cn-a\n"])
def test_region_is_refused(region: str) -> None:
    with pytest.raises(UsageError, match="is no region id"):
        check_region(region)


@pytest.mark.parametrize(
    ("network", "endpoint"),
    [
        ("public", "https://emr-serverless-spark.cn-hangzhou.aliyuncs.com"),
        ("vpc", "https://emr-serverless-spark-vpc.cn-hangzhou.aliyuncs.com"),
    ],
)
def test_endpoint_follows_region_and_network(network: str, endpoint: str) -> None:
    assert build_endpoint(region="cn-hangzhou", network=network) == endpoint


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1000", 1000),
        ("64MiB", 64 << 20),
        ("1.5 GiB", 3 << 29),
        ("500MB", 500_000_000),
        ("1kb", 1000),
        ("7B", 7),
        (" 2TiB ", 2 << 40),
    ],
)
def test_size_is_a_number_of_bytes_or_has_a_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1M", "1ib", "64 Mi B", "1e9", "\u0661MB"])
def test_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a size"):
        parse_size(text)


@pytest.mark.parametrize("size_bytes", [0, 1, 1000, 1 << 10, 128 << 20, 3 << 29, 1 << 40])
def test_size_that_is_shown_reads_the_same(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


def test_json_schema_describes_each_key() -> None:
    schema = build_json_schema()

    assert list(schema["properties"]) == [*FIELDS, "paimon"]
    assert schema["additionalProperties"] is False
    assert schema["type"] == "object"
    for name, field in FIELDS.items():
        assert schema["properties"][name]["description"] == field.option.help


def test_json_schema_has_the_defaults_and_no_null() -> None:
    properties = build_json_schema()["properties"]

    assert "null" not in str(properties)
    for name, field in FIELDS.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert properties[name].get("default") == default


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page_size", {"type": "integer", "minimum": 1, "maximum": 100}),
        ("concurrency", {"type": "integer", "minimum": 1, "maximum": 1000}),
        ("retries", {"type": "integer", "minimum": 0, "maximum": 100}),
        ("verbose", {"type": "integer", "minimum": 0, "maximum": 2}),
        ("network", {"type": "string", "enum": ["public", "vpc"]}),
        (
            "format",
            {
                "type": "string",
                "enum": ["parquet", "ndjson", "arrow", "delta", "iceberg", "paimon"],
            },
        ),
        ("quiet", {"type": "boolean"}),
        ("region", {"type": "string", "minLength": 1}),
        ("workspace", {"type": "array", "items": {"type": "string", "minLength": 1}}),
        ("gateway", {"type": "array", "minItems": 1}),
    ],
)
def test_json_schema_has_the_bounds(name: str, expected: dict[str, Any]) -> None:
    schema = build_json_schema()["properties"][name]

    assert {key: schema[key] for key in expected} == expected


def test_json_schema_takes_a_duration_as_number_or_text() -> None:
    number, text = build_json_schema()["properties"]["timeout"]["anyOf"]

    assert number == {"type": "number", "minimum": 0.001, "maximum": 86400}
    assert text["type"] == "string"


def test_dumped_settings_are_the_same_when_loaded_again(tmp_path: Path) -> None:
    nasty = 'quote " back\\slash\ttab \x7f del, 用户 \u2028 #no comment'
    loaded = load_settings(
        {
            "output": nasty,
            "profile": nasty,
            "workspace": ["w-1", "用户"],
            "timeout": "1h",
            "quiet": True,
        },
        environ={"LIVY_EXPORTER_PAGE_SIZE": "7"},
        config_file=None,
    )

    text = dump_toml(loaded)

    assert load(toml=text, folder=tmp_path) == loaded.settings
    values = {name: getattr(loaded.settings, name) for name in FIELDS}
    known = {name: value for name, value in values.items() if value is not None}
    assert tomllib.loads(text) == known | {
        "workspace": list(loaded.settings.workspace),
        "gateway": ["all"],
        "omit": [],
        "partition_by": [],
    }


def test_dumped_settings_name_their_origins(tmp_path: Path) -> None:
    path = tmp_path / "livy\n.toml"
    path.write_text("retries = 3", encoding="utf-8")
    loaded = load_settings(
        {"output": "out.parquet"},
        environ={"LIVY_EXPORTER_PAGE_SIZE": "7"},
        config_file=str(path),
    )

    lines = dump_toml(loaded).splitlines()

    assert 'output = "out.parquet"  # --output' in lines
    assert "page_size = 7  # LIVY_EXPORTER_PAGE_SIZE" in lines
    assert f"retries = 3  # {tmp_path}/livy?.toml" in lines
    assert "concurrency = 32  # default" in lines
    assert "# region is not set" in lines
