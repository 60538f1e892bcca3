"""The settings of a run: defaults, then a TOML file, then the environment, then flags.

One frozen dataclass is the only list of settings: flags, TOML keys, environment variables, `--help` and the
JSON Schema are read off its fields. pydantic validates it and is imported only then.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from exporter.errors import UsageError

ENVIRONMENT_PREFIX = "LIVY_EXPORTER_"
DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Group = Literal["identity and service", "what to list", "output", "speed", "watching"]


@dataclass(frozen=True, slots=True)
class Option:
    """What the command line and the JSON Schema say of one setting; pydantic reads it as metadata."""

    help: str
    group: Group
    metavar: str | None = None
    short: str | None = None

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core_schema), "description": self.help}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most a number may be, both included; annotated-types would cost `--help` 25 ms."""

    least: float
    most: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "ge": self.least, "le": self.most}


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks a number of seconds that may also be written with a unit, such as `500ms` or `7d`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(parse_duration, handler(source))

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        text = {"type": "string", "pattern": r"^[0-9.]+(ms|s|m|h|d)?$"}
        return {"anyOf": [handler(core_schema["schema"]), text]}


def parse_duration(value: object) -> object:
    """Seconds of a text such as `30`, `30s`, `5m` or `7d`; any other value as it is.

    Raises ValueError for a text that is no duration.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", value.strip())
    if match is None:
        raise ValueError("should be a duration such as 30s, 5m or 2h")
    return float(match[1]) * DURATION_UNITS_S[match[2] or "s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run can be told. Field names are the TOML keys and the API's argument names."""

    profile: Annotated[
        str | None,
        Option(
            "profile of the aliyun CLI's file; default: the default credential chain",
            "identity and service",
            metavar="NAME",
        ),
    ] = None
    region: Annotated[
        str | None,
        Option(
            "region, such as cn-hangzhou; default: the profile's, then ALIBABA_CLOUD_REGION_ID",
            "identity and service",
            metavar="ID",
        ),
    ] = None
    endpoint: Annotated[
        str | None,
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
        tuple[str, ...],
        Option(
            "workspace to list, repeatable; all: every one that is found",
            "what to list",
            metavar="ID",
        ),
    ] = ()
    gateway: Annotated[
        tuple[str, ...],
        Option(
            "Livy gateway to list, repeatable; all: every one that is found",
            "what to list",
            metavar="ID",
        ),
    ] = ("all",)
    output: Annotated[
        str | None,
        Option("file to write, or - for stdout", "output", metavar="URI", short="o"),
    ] = None
    format: Annotated[
        Literal["parquet", "ndjson"] | None,
        Option("default: from the output's name; - is NDJSON", "output"),
    ] = None
    compression: Annotated[
        Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"],
        Option("codec inside Parquet", "output"),
    ] = "zstd"
    allow_incomplete: Annotated[
        bool,
        Option("publish although completeness is not proven", "output"),
    ] = False
    manifest: Annotated[
        str | None,
        Option("also write the manifest here; it always stands beside a file", "output", "FILE"),
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
    timeout: Annotated[
        float,
        Bounds(0.001, 86400),
        Duration(),
        Option("longest one request may take", "speed", metavar="DURATION"),
    ] = 30.0
    retries: Annotated[
        int,
        Bounds(0, 100),
        Option("most times one request is asked again", "speed", metavar="N"),
    ] = 8
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


def read_fields() -> tuple[Field, ...]:
    """Every setting in the order of its definition."""
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        build_field(each.name, hints[each.name], each.default) for each in fields(Settings)
    )


def build_field(name: str, hint: Any, default: object) -> Field:
    option = next(each for each in hint.__metadata__ if isinstance(each, Option))
    bare = hint.__origin__
    parts = get_args(bare)
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
    if get_origin(bare) is tuple:
        return Field(name, option, default, "list", ())
    return Field(name, option, default, "number" if bare in (int, float) else "text", ())


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each one that is not a default came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Setting name to what the reader typed: `--page-size`, `LIVY_EXPORTER_PAGE_SIZE`, `page_size in FILE`."""


def load_settings(
    flags: Mapping[str, object], *, environ: Mapping[str, str], config_file: str | None
) -> Loaded:
    """Merge the four sources and validate them.

    `flags` holds only what was given. Raises UsageError naming the source of the first value that does not fit.
    """
    known = read_fields()
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for found, origin in (
        *read_file(config_file or environ.get(ENVIRONMENT_PREFIX + "CONFIG"), known),
        *read_environment(environ, known),
        *(((each.name, flags[each.name]), each.flag) for each in known if each.name in flags),
    ):
        name, value = found
        values[name] = value
        origins[name] = origin
    return Loaded(validate(values, origins=origins), origins)


def read_file(path: str | None, known: tuple[Field, ...]) -> list[tuple[tuple[str, object], str]]:
    if path is None:
        return []
    import tomllib
    from pathlib import Path

    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(
            f"cannot read {path}: {exc.strerror}", hint="see config.example.toml for a start"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is no TOML: {exc}", hint="see config.example.toml") from exc
    names = [field.name for field in known]
    for key in document:
        if key not in names:
            raise UsageError(f"unknown key {key} in {path}", hint=suggest(key, names))
    return [((key, value), f"{key} in {path}") for key, value in document.items()]


def read_environment(
    environ: Mapping[str, str], known: tuple[Field, ...]
) -> list[tuple[tuple[str, object], str]]:
    by_variable = {field.variable: field for field in known}
    found: list[tuple[tuple[str, object], str]] = []
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == ENVIRONMENT_PREFIX + "CONFIG":
            continue
        field = by_variable.get(variable)
        if field is None:
            raise UsageError(
                f"unknown environment variable {variable}",
                hint=suggest(variable, list(by_variable)),
            )
        # An empty variable is how shells and CI systems say "not set".
        if text:
            value = split_list(text) if field.kind == "list" else text
            found.append(((field.name, value), variable))
    return found


def split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def suggest(word: str, known: list[str]) -> str:
    """A hint that names the nearest known word, or all of them."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)


def validate(values: Mapping[str, object], *, origins: Mapping[str, str]) -> Settings:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Settings).validate_python(dict(values))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        hints = get_type_hints(Settings, include_extras=True)
        option = build_field(name, hints[name], None).option
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
        raise UsageError(
            f"{origins.get(name, name)} {shown(values.get(name))}: {message}",
            hint=f"{name}: {option.help}",
        ) from exc


def shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def build_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the TOML file."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Settings).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "livy-exporter configuration",
        "additionalProperties": False,
    }


def dump_toml(loaded: Loaded) -> str:
    """The effective settings as a TOML file, each line with its origin; unset ones are comments."""
    lines = []
    for name, value in asdict(loaded.settings).items():
        origin = loaded.origins.get(name, "default")
        if value is None:
            lines.append(f"# {name} is not set")
        else:
            lines.append(f"{name} = {toml_value(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def toml_value(value: object) -> str:
    import orjson

    # JSON's texts, numbers, booleans and flat arrays are TOML's as well.
    return orjson.dumps(value).decode()


def build_endpoint(*, region: str, network: str) -> str:
    """The service's public or VPC endpoint in a region (the official SDK's endpoint rule)."""
    suffix = "-vpc" if network == "vpc" else ""
    return f"https://emr-serverless-spark{suffix}.{region}.aliyuncs.com"


def check_region(region: str) -> str:
    """The region as given. Raises UsageError when it cannot be one; new regions need no new release."""
    if re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+)+", region) is None:
        raise UsageError(f"{region!r} is no region id", hint="a region id reads like cn-hangzhou")
    return region


def check_endpoint(url: str) -> str:
    """The endpoint without a trailing slash.

    Raises UsageError unless it is https://HOST[:PORT], or http:// to a loopback address: requests carry
    signatures and STS tokens that must not travel in clear.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            f"{url!r} is no endpoint", hint="an endpoint reads like https://HOST[:PORT]"
        )
    if parts.username or parts.password or parts.query or parts.path not in {"", "/"}:
        raise UsageError(
            f"endpoint {parts.scheme}://{parts.hostname} has more than a host and a port",
            hint="an endpoint reads like https://HOST[:PORT]",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UsageError(
            f"http:// to {parts.hostname} would send signed requests in clear",
            hint="use https://; http:// is for loopback addresses",
        )
    try:
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"{url!r} has no valid port", hint="ports are 1 to 65535") from exc
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def is_loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
