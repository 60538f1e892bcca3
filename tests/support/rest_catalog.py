"""A minimal Iceberg REST catalog on loopback: the protocol over a SQL catalog."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pyiceberg.catalog.rest import CreateTableRequest, TableResponse
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest, Table

STATUSES: dict[type[Exception], int] = {
    NoSuchNamespaceError: 404,
    NoSuchTableError: 404,
    NamespaceAlreadyExistsError: 409,
    TableAlreadyExistsError: 409,
    CommitFailedException: 409,
}


class NamedTable:
    """The part of a table that the SQL catalog needs to commit."""

    def __init__(self, *identifier: str) -> None:
        self._identifier = identifier

    def name(self) -> tuple[str, ...]:
        return self._identifier


class RestCatalog:
    """Answers requests with the right token, by method and path."""

    def __init__(self, catalog: SqlCatalog, *, token: str) -> None:
        self.token = token
        self._catalog = catalog
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        parts = path.partition("?")[0].strip("/").split("/")[1:]
        handler = self._find(method, parts)
        if handler is None:
            return 404, json.dumps({"error": {"message": path, "type": "NotFound", "code": 404}})
        try:
            with self._lock:
                return 200, handler(parts, body)
        except tuple(STATUSES) as exc:
            code = next(code for kind, code in STATUSES.items() if isinstance(exc, kind))
            error = {"message": str(exc), "type": type(exc).__name__, "code": code}
            return code, json.dumps({"error": error})

    def _find(self, method: str, parts: list[str]) -> Callable[[list[str], bytes], str] | None:
        handlers: dict[tuple[str, int, str], Callable[[list[str], bytes], str]] = {
            ("GET", 1, "config"): lambda _, __: '{"defaults": {}, "overrides": {}}',
            ("POST", 1, "namespaces"): self._create_namespace,
            ("GET", 2, "namespaces"): self._load_namespace,
            ("POST", 3, "namespaces"): self._create_table,
            ("GET", 4, "namespaces"): self._load_table,
            ("POST", 4, "namespaces"): self._commit,
        }
        return handlers.get((method, len(parts), parts[0]))

    def _create_namespace(self, _: list[str], body: bytes) -> str:
        namespace = tuple(json.loads(body)["namespace"])
        self._catalog.create_namespace(namespace)
        return json.dumps({"namespace": namespace, "properties": {}})

    def _load_namespace(self, parts: list[str], _: bytes) -> str:
        properties = self._catalog.load_namespace_properties((parts[1],))
        return json.dumps({"namespace": [parts[1]], "properties": properties})

    def _create_table(self, parts: list[str], body: bytes) -> str:
        request = CreateTableRequest.model_validate({"location": None, **json.loads(body)})
        assert request.stage_create
        return describe(
            self._catalog._create_staged_table(
                (parts[1], request.name),
                request.table_schema,
                request.location,
                request.partition_spec or UNPARTITIONED_PARTITION_SPEC,
                properties=request.properties,
            )
        )

    def _load_table(self, parts: list[str], _: bytes) -> str:
        return describe(self._catalog.load_table((parts[1], parts[3])))

    def _commit(self, parts: list[str], body: bytes) -> str:
        request = CommitTableRequest.model_validate_json(body)
        table: Any = NamedTable(parts[1], parts[3])
        answer = self._catalog.commit_table(table, request.requirements, request.updates)
        return answer.model_dump_json(by_alias=True)


def describe(table: Table) -> str:
    answer = {"metadata-location": table.metadata_location, "metadata": table.metadata}
    return TableResponse.model_validate(answer).model_dump_json(by_alias=True)


@contextmanager
def serve(catalog: SqlCatalog, *, token: str) -> Iterator[str]:
    """Serve the catalog; gives its address."""
    rest = RestCatalog(catalog, token=token)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {rest.token}":
                error = {"message": "who are you", "type": "Unauthorized", "code": 401}
                status, text = 401, json.dumps({"error": error})
            else:
                status, text = rest.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
