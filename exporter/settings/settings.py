"""The settings of a run, as one frozen dataclass.

It is the only list of settings: flags, TOML keys, environment variables, `--help` and the JSON
Schema are made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from exporter.model import OutputFormat, ParquetCodec
from exporter.settings.annotations import (
    DISTINCT,
    Bounds,
    Duration,
    Id,
    Instant,
    NotEmpty,
    Option,
    Size,
    Text,
    path_name,
)
from exporter.settings.files import PARTIAL_BYTES

ProgressMode = Literal["auto", "bar", "plain", "none"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a run. Field names are the TOML keys and the API's argument names."""

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
        Literal["public", "vpc"], Option("which of the region's endpoints", "identity and service")
    ] = "public"
    workspace: Annotated[
        tuple[Id, ...],
        Option("workspace to list, repeatable; all: each one found", "what to list", metavar="ID"),
    ] = ()
    gateway: Annotated[
        tuple[Id, ...],
        NotEmpty(),
        Option(
            "Livy gateway to list, repeatable; all: each one found", "what to list", metavar="ID"
        ),
    ] = ("all",)
    since: Annotated[
        Instant | None,
        Option(
            "only sessions created since: 2026-11-01 (UTC), 2026-11-01T08:00:00+08:00, or 7d"
            " before the run",
            "what to list",
            metavar="TIME",
        ),
    ] = None
    until: Annotated[
        Instant | None,
        Option(
            "only sessions created before; written as --since is", "what to list", metavar="TIME"
        ),
    ] = None
    output: Annotated[
        Text | None,
        path_name(),
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
        DISTINCT,
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
    compression: Annotated[ParquetCodec, Option("codec inside Parquet", "output")] = "zstd"
    allow_incomplete: Annotated[
        bool, Option("publish although completeness is not proven", "output")
    ] = False
    allow_empty: Annotated[
        bool, Option("publish an empty output in place of one that has sessions", "output")
    ] = False
    omit: Annotated[
        tuple[Text, ...],
        DISTINCT,
        Option(
            "field to leave out of every output, such as sparkConf or spark_conf, repeatable",
            "output",
            metavar="FIELD",
        ),
    ] = ()
    manifest: Annotated[
        Text | None,
        path_name(reserved_bytes=PARTIAL_BYTES),
        Option(
            "write the manifest here too, not only beside the output",
            "output",
            metavar="FILE",
            completes="file",
        ),
    ] = None
    wait: Annotated[
        Annotated[float, Duration(0, 604_800)] | None,
        Option(
            "longest to wait for another run that writes the output; default: fail at once",
            "output",
            metavar="DURATION",
        ),
    ] = None
    metrics_file: Annotated[
        Text | None,
        path_name(reserved_bytes=PARTIAL_BYTES, is_local=True),
        Option(
            "write metrics of the run here, in Prometheus textfile format",
            "output",
            metavar="FILE",
            completes="file",
        ),
    ] = None
    incremental: Annotated[
        bool,
        Option(
            "only sessions that are new or may have changed since the last run; for a folder",
            "run after run",
        ),
    ] = False
    state: Annotated[
        Text | None,
        path_name(reserved_bytes=PARTIAL_BYTES),
        Option(
            "state that this run leaves for the next incremental one; default: in the output",
            "run after run",
            metavar="URI",
            completes="file",
        ),
    ] = None
    settle: Annotated[
        float,
        Duration(0, 31_536_000),
        Option(
            "how long after its end a session is read again, as its figures may change; 0: never",
            "run after run",
            metavar="DURATION",
        ),
    ] = 3_600.0
    full_every: Annotated[
        Annotated[float, Duration(1, 31_536_000)] | None,
        Option(
            "list in full when the last full listing is older, such as 7d; default: never",
            "run after run",
            metavar="DURATION",
        ),
    ] = None
    resume: Annotated[
        bool,
        Option(
            "continue a killed run; --no-resume starts afresh and leaves no journal",
            "run after run",
        ),
    ] = True
    resume_within: Annotated[
        float,
        Duration(1, 31_536_000),
        Option(
            "greatest age of a killed run's journal to continue from",
            "run after run",
            metavar="DURATION",
        ),
    ] = 86_400.0
    keep_leftovers: Annotated[
        float,
        Duration(0, 31_536_000),
        Option(
            "how long another run's unpublished files are kept in an object store",
            "run after run",
            metavar="DURATION",
        ),
    ] = 86_400.0
    spool: Annotated[
        Text | None,
        path_name(is_local=True),
        Option(
            "local folder of the journal that resumes a run; default: beside a local output",
            "run after run",
            metavar="DIR",
            completes="file",
        ),
    ] = None
    page_size: Annotated[
        int, Bounds(1, 100), Option("sessions a request, 1 to 100", "speed", metavar="N")
    ] = 100
    concurrency: Annotated[
        int,
        Bounds(1, 1000),
        Option("most requests in flight, over all gateways, 1 to 1000", "speed", metavar="N"),
    ] = 32
    max_rps: Annotated[
        Annotated[float, Bounds(0.1, 10_000)] | None,
        Option(
            "most requests a second; default: find out the service's quota", "speed", metavar="N"
        ),
    ] = None
    timeout: Annotated[
        float,
        Duration(0.001, 86400),
        Option("longest one request may take", "speed", metavar="DURATION"),
    ] = 30.0
    retries: Annotated[
        int, Bounds(0, 100), Option("most retries of one request, 0 to 100", "speed", metavar="N")
    ] = 8
    patience: Annotated[
        float,
        Duration(0.001, 604_800),
        Option(
            "longest time without a granted request while throttled", "speed", metavar="DURATION"
        ),
    ] = 600.0
    deadline: Annotated[
        Annotated[float, Duration(0.001, 604_800)] | None,
        Option("longest the whole run may take; default: no end", "speed", metavar="DURATION"),
    ] = None
    progress: Annotated[ProgressMode, Option("how progress is shown on stderr", "watching")] = (
        "auto"
    )
    log_format: Annotated[LogFormat, Option("how stderr is written", "watching")] = "text"
    verbose: Annotated[
        int,
        Bounds(0, 2),
        Option("say more: -v each retry, -vv tracebacks too", "watching", short="v"),
    ] = 0
    quiet: Annotated[bool, Option("say nothing but errors", "watching", short="q")] = False
    paimon: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Options of Paimon catalogs by the catalog's name. No flag sets them: see `catalogs`."""
