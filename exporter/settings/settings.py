"""The settings of a run: one frozen dataclass, and what the command line reads off its fields.

It is the only list of settings: flags, TOML keys, environment variables, `--help` and the JSON
Schema are made of it. pydantic validates it and is imported only then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from exporter.model import OutputFormat, ParquetCodec
from exporter.settings.annotations import (
    Bounds,
    Distinct,
    Duration,
    Filled,
    Id,
    Instant,
    Option,
    PathName,
    Size,
    Text,
    format_size,
)
from exporter.settings.files import PARTIAL_BYTES

ENVIRONMENT_PREFIX = "LIVY_EXPORTER_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run can be told. Field names are the TOML keys and the API's argument names."""

    profile: Annotated[
        Text | None,
        Option(
            "profile of the aliyun CLI's file; default: the default credential chain",
            "identity and service",
            metavar="NAME",
        ),
    ] = None
    region: Annotated[
        Text | None,
        Option(
            "region, such as cn-hangzhou; default: the profile's, then ALIBABA_CLOUD_REGION_ID",
            "identity and service",
            metavar="ID",
        ),
    ] = None
    endpoint: Annotated[
        Text | None,
        Option(
            "the service's URL; default: the region's. http:// only to loopback",
            "identity and service",
            metavar="URL",
        ),
    ] = None
    network: Annotated[
        Literal["public", "vpc"],
        Option("which of the region's endpoints", "identity and service"),
    ] = "public"
    workspace: Annotated[
        tuple[Id, ...],
        Option("workspace to list, repeatable; all: each one found", "what to list", metavar="ID"),
    ] = ()
    gateway: Annotated[
        tuple[Id, ...],
        Filled(),
        Option(
            "Livy gateway to list, repeatable; all: each one found", "what to list", metavar="ID"
        ),
    ] = ("all",)
    since: Annotated[
        Text | None,
        Instant(),
        Option(
            "only sessions created since: 2026-11-01 (UTC), 2026-11-01T08:00:00+08:00, or 7d"
            " before the run",
            "what to list",
            metavar="TIME",
        ),
    ] = None
    until: Annotated[
        Text | None,
        Instant(),
        Option(
            "only sessions created before; written as --since is", "what to list", metavar="TIME"
        ),
    ] = None
    output: Annotated[
        Text | None,
        PathName(),
        Option(
            "file to write, or - for stdout", "output", metavar="FILE", short="o", completes="file"
        ),
    ] = None
    format: Annotated[
        OutputFormat | None,
        Option("default: by the output's name; - is NDJSON, a folder Parquet", "output"),
    ] = None
    storage_endpoint: Annotated[
        Text | None,
        Option(
            "the object store's URL; default: OSS of the region, S3 by the AWS rules",
            "object store",
            metavar="URL",
        ),
    ] = None
    storage_addressing: Annotated[
        Literal["virtual", "path"],
        Option("where a bucket's name stands: in the host or in the path", "object store"),
    ] = "virtual"
    partition_by: Annotated[
        tuple[Literal["dt", "region_id", "workspace_id", "compute_id", "state", "queue"], ...],
        Distinct(),
        Option(
            "columns that a folder's parts are in folders by, repeatable: dt (UTC date of"
            " create_time), region_id, workspace_id, compute_id, state, queue",
            "output",
            metavar="COLUMN",
        ),
    ] = ()
    target_file_size: Annotated[
        int,
        Size(1 << 20, 64 << 30),
        Option(
            "size at which a part of a folder ends, such as 64MiB, 500MB or 1GiB",
            "output",
            metavar="SIZE",
        ),
    ] = 128 << 20
    compression: Annotated[
        ParquetCodec,
        Option("codec inside Parquet", "output"),
    ] = "zstd"
    allow_incomplete: Annotated[
        bool,
        Option("publish although completeness is not proven", "output"),
    ] = False
    allow_empty: Annotated[
        bool,
        Option("publish no session in place of an output that has some", "output"),
    ] = False
    omit: Annotated[
        tuple[Text, ...],
        Distinct(),
        Option(
            "field to leave out of every output, such as sparkConf or spark_conf, repeatable",
            "output",
            metavar="FIELD",
        ),
    ] = ()
    manifest: Annotated[
        Text | None,
        PathName(PARTIAL_BYTES),
        Option(
            "write the manifest here too, not only beside the output",
            "output",
            metavar="FILE",
            completes="file",
        ),
    ] = None
    wait: Annotated[
        Annotated[float, Bounds(0, 604_800), Duration()] | None,
        Option(
            "longest to wait for another run that writes the output; default: fail at once",
            "output",
            metavar="DURATION",
        ),
    ] = None
    metrics_file: Annotated[
        Text | None,
        PathName(PARTIAL_BYTES, is_local=True),
        Option(
            "write what came of the run here, in Prometheus textfile format",
            "output",
            metavar="FILE",
            completes="file",
        ),
    ] = None
    incremental: Annotated[
        bool,
        Option(
            "only what is new or may have changed since the last published run; for a folder",
            "run after run",
        ),
    ] = False
    state: Annotated[
        Text | None,
        PathName(PARTIAL_BYTES),
        Option(
            "where the next incremental run finds what this one knew; default: in the output",
            "run after run",
            metavar="URI",
            completes="file",
        ),
    ] = None
    settle: Annotated[
        float,
        Bounds(0, 31_536_000),
        Duration(),
        Option(
            "how long after its end a session is read again, as its figures may change; 0: never",
            "run after run",
            metavar="DURATION",
        ),
    ] = 3_600.0
    full_every: Annotated[
        Annotated[float, Bounds(1, 31_536_000), Duration()] | None,
        Option(
            "list in full when the last full listing is older, such as 7d; default: never",
            "run after run",
            metavar="DURATION",
        ),
    ] = None
    resume: Annotated[
        bool,
        Option(
            "go on where a killed run was; --no-resume starts afresh and leaves no journal",
            "run after run",
        ),
    ] = True
    resume_within: Annotated[
        float,
        Bounds(1, 31_536_000),
        Duration(),
        Option(
            "how old what a killed run left may be, to go on from there",
            "run after run",
            metavar="DURATION",
        ),
    ] = 86_400.0
    keep_leftovers: Annotated[
        float,
        Bounds(0, 31_536_000),
        Duration(),
        Option(
            "how long what another run left unpublished in an object store is let be",
            "run after run",
            metavar="DURATION",
        ),
    ] = 86_400.0
    spool: Annotated[
        Text | None,
        PathName(is_local=True),
        Option(
            "local folder for what a run has read, to resume it; default: beside a local output",
            "run after run",
            metavar="DIR",
            completes="file",
        ),
    ] = None
    page_size: Annotated[
        int,
        Bounds(1, 100),
        Option("sessions a request, 1 to 100", "speed", metavar="N"),
    ] = 100
    concurrency: Annotated[
        int,
        Bounds(1, 1000),
        Option("most requests in flight, over all gateways, 1 to 1000", "speed", metavar="N"),
    ] = 32
    max_rps: Annotated[
        Annotated[float, Bounds(0.1, 10_000)] | None,
        Option(
            "most requests a second; default: find out what the service allows",
            "speed",
            metavar="N",
        ),
    ] = None
    timeout: Annotated[
        float,
        Bounds(0.001, 86400),
        Duration(),
        Option("longest one request may take", "speed", metavar="DURATION"),
    ] = 30.0
    retries: Annotated[
        int,
        Bounds(0, 100),
        Option("most times one request is asked again, 0 to 100", "speed", metavar="N"),
    ] = 8
    patience: Annotated[
        float,
        Bounds(0.001, 604_800),
        Duration(),
        Option(
            "longest time in which no request is granted for want of quota",
            "speed",
            metavar="DURATION",
        ),
    ] = 600.0
    deadline: Annotated[
        Annotated[float, Bounds(0.001, 604_800), Duration()] | None,
        Option("longest the whole run may take; default: no end", "speed", metavar="DURATION"),
    ] = None
    progress: Annotated[
        Literal["auto", "bar", "plain", "none"],
        Option("how progress is shown on stderr", "watching"),
    ] = "auto"
    log_format: Annotated[
        Literal["text", "json"],
        Option("how stderr is written", "watching"),
    ] = "text"
    verbose: Annotated[
        int,
        Bounds(0, 2),
        Option("say more: -v each retry, -vv tracebacks too", "watching", short="v"),
    ] = 0
    quiet: Annotated[
        bool,
        Option("say nothing but errors", "watching", short="q"),
    ] = False
    paimon: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Catalogs of Paimon tables: options by the catalog's name. No flag sets it, but the file's
    tables `[paimon.NAME]`, and variables of their own: see `catalogs`.
    """


@dataclass(frozen=True, slots=True)
class Field:
    """One setting as the command line sees it."""

    name: str
    option: Option
    default: Any
    kind: Literal["text", "number", "switch", "list", "choice", "count"]
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def default_text(self) -> str | None:
        """The default as a reader would write it; None where there is none, or it is no or 0."""
        match self.default:
            case None | False | 0 | ():
                return None
            case bool():
                return "true"
            case tuple():
                return ",".join(self.default)
            case int() if self.option.metavar == "SIZE":
                return format_size(self.default)
            case float():
                return format_seconds(self.default)
            case _:
                return str(self.default)


def format_seconds(seconds: float) -> str:
    """A duration as a reader would write it: whole hours and minutes as such."""
    for unit, length_s in (("h", 3600), ("m", 60)):
        if seconds >= length_s and seconds % length_s == 0:
            return f"{seconds / length_s:g}{unit}"
    return f"{seconds:g}s"


@cache
def read_fields() -> tuple[Field, ...]:
    """Every setting that is one value, in the order of its definition."""
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        build_field(each.name, hints[each.name], each.default)
        for each in fields(Settings)
        if get_origin(hints[each.name]) is Annotated
    )


def build_field(name: str, hint: Any, default: object) -> Field:
    option = next(each for each in hint.__metadata__ if isinstance(each, Option))
    bare = hint.__origin__
    parts = get_args(bare)
    if get_origin(bare) is tuple:
        words = get_args(parts[0]) if get_origin(parts[0]) is Literal else ()
        return Field(name, option, default, "list", words)
    choice = (
        bare
        if get_origin(bare) is Literal
        else next((part for part in parts if get_origin(part) is Literal), None)
    )
    if choice is not None:
        return Field(name, option, default, "choice", get_args(choice))
    if bare is bool:
        return Field(name, option, default, "switch", ())
    if name == "verbose":
        return Field(name, option, default, "count", ())
    return Field(name, option, default, "number" if bare in (int, float) else "text", ())
