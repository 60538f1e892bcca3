"""Checks a published output against its manifest: files, bytes, rows and keys; blocks.

Every file is read twice: once for its SHA-256, then for its rows, and of Parquet only the key
columns. Memory does not depend on the sizes of the files; the keys take 12 to 24 bytes a row: see
`listing.keyset`. Two of n rows are mistaken for equal with probability n²/2⁶⁵: one in a million at
six million rows.
"""

from dataclasses import dataclass

from exporter.destinations.destination import Destination, Sidecars
from exporter.errors import DestinationError, UsageError
from exporter.listing.keyset import KeySet
from exporter.model import KEY_COLUMNS, FileCodec, FileFormat
from exporter.runs.intents import find_intents
from exporter.runs.manifest import Manifest, ManifestFile, parse_manifest
from exporter.sinks.formats import FORMATS, read_keys
from exporter.sinks.keys import UnreadableFileError, join_keys
from exporter.stores.hashing import digest
from exporter.tables.interface import Table

MAX_RESERVED_KEYS = 10_000_000
"""Keys that memory is reserved for: a damaged manifest may claim any number."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference between an output and its manifest."""

    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A count in the manifest, and in the output."""

    what: str
    promised: int
    """As the manifest says."""
    found: int


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking an output."""

    output: str
    manifest: Manifest | None
    """None where there is no readable manifest."""
    checked: tuple[Checked, ...]
    problems: tuple[Problem, ...]


def verify(destination: Destination) -> Verification:
    """Check the output against the manifest beside it.

    Raises UsageError for a stream, which has no manifest beside it, and DestinationError where the
    manifest or the folder cannot be read.
    """
    sidecars = destination.sidecars
    if sidecars is None:
        raise UsageError(
            f"'{destination.output}' cannot be read again",
            hint="name a file or a folder that an export wrote",
        )
    problems = find_unfinished(sidecars)
    content = sidecars.store.read(sidecars.manifest)
    if content is None:
        place = sidecars.store.path_of(sidecars.manifest)
        missing = Problem(
            f"'{destination.output}' has no manifest: there is no '{place}'",
            "name the output as --output named it; a moved output takes its manifest along",
        )
        return Verification(destination.output, None, (), (*problems, missing))
    try:
        manifest = parse_manifest(content)
    except ValueError as exc:
        broken = Problem(f"'{sidecars.store.path_of(sidecars.manifest)}' is no manifest: {exc}")
        return Verification(destination.output, None, (), (*problems, broken))
    if destination.table is not None:
        return verify_table(
            destination.table, manifest, output=destination.output, problems=problems
        )
    check = Check(destination, manifest)
    check.run()
    return Verification(destination.output, manifest, check.counts, (*problems, *check.problems))


def verify_table(
    table: Table, manifest: Manifest, *, output: str, problems: tuple[Problem, ...]
) -> Verification:
    """Check that the table's log has the run's commit, and that each key occurs once.

    Files and row counts are not checked: the table's log names them, and others write to it too.
    """
    keys = KeySet(manifest.session_count)
    row_count = repeated_count = 0
    for batch in table.read_columns(KEY_COLUMNS):
        row_count += batch.num_rows
        repeated_count += len(keys.add_all(join_keys(batch, with_version=False)))
    found = list(problems)
    if manifest.session_count > 0 and table.find_commit(manifest.run_id) is None:
        found.append(
            Problem(
                f"'{output}' has no commit of run {manifest.run_id}",
                "a table forgets it where old snapshots are expired; else export again",
            )
        )
    if repeated_count > 0:
        found.append(Problem(f"'{output}' has {repeated_count:,} rows whose key is there twice"))
    checked = (Checked("distinct keys", row_count, len(keys)),)
    return Verification(output, manifest, checked, tuple(found))


def find_unfinished(sidecars: Sidecars) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            "a publish was cut short, or is going on: there is"
            f" '{sidecars.store.path_of(each.name)}'",
            "run the export again, which completes it",
        )
        for each in find_intents(sidecars)
    )


class Check:
    """Compares the files of an output with its manifest."""

    def __init__(self, destination: Destination, manifest: Manifest) -> None:
        self.problems: list[Problem] = []
        self._destination = destination
        self._manifest = manifest
        self._keys = KeySet(min(manifest.row_count, MAX_RESERVED_KEYS))
        self._file_count = 0
        self._size_bytes = 0
        self._intact_count = 0
        self._row_count = 0

    @property
    def counts(self) -> tuple[Checked, ...]:
        files = self._manifest.files
        return (
            Checked("files", len(files), self._file_count),
            Checked("bytes", sum(each.size_bytes for each in files), self._size_bytes),
            Checked("files of equal SHA-256", len(files), self._intact_count),
            Checked("rows", self._manifest.row_count, self._row_count),
            Checked("distinct keys", self._manifest.row_count, len(self._keys)),
        )

    def run(self) -> None:
        files = self._manifest.files
        if self._destination.kind == "file" and len(files) != 1:
            self._report(f"its manifest names {len(files):,} files, not one")
        else:
            for each in files:
                self._check_file(each)
        self._check_session_count()
        if self._destination.kind == "dataset":
            self._check_foreign()

    def _report(self, message: str) -> None:
        self.problems.append(Problem(message))

    def _check_file(self, file: ManifestFile) -> None:
        store = self._destination.store
        # A single file may have been moved: its name is that of the destination.
        name = self._destination.name or file.path
        quoted_path = f"'{store.path_of(name)}'"
        try:
            size_bytes = store.size_of(name)
            if size_bytes is None:
                self._report(f"{quoted_path} is missing")
                return
            self._file_count += 1
            self._size_bytes += size_bytes
            if size_bytes != file.size_bytes:
                self._report(
                    f"{quoted_path} has {size_bytes:,} bytes, its manifest says {file.size_bytes:,}"
                )
                return
            sha256 = digest(store, name)
            if sha256 != file.sha256:
                self._report(f"{quoted_path} has SHA-256 {sha256}, its manifest says {file.sha256}")
                return
            self._intact_count += 1
            self._check_rows(name, quoted_path, file)
        except (DestinationError, UnreadableFileError) as exc:
            self._report(f"{quoted_path} cannot be read: {exc}")
        except OSError as exc:
            self._report(f"{quoted_path} cannot be read: {exc.strerror or exc}")

    def _check_rows(self, name: str, quoted_path: str, file: ManifestFile) -> None:
        """For an intact file only: rows of any other are meaningless."""
        row_count = repeated_count = 0
        first = ""
        with self._destination.store.open_input(name) as stream:
            for keys in read_keys(
                stream,
                output_format=self._format,
                codec=self._codec,
                # A dataset has one row for each version of a session.
                with_version=self._destination.kind == "dataset",
            ):
                row_count += len(keys)
                repeated = self._keys.add_all(keys)
                if repeated and repeated_count == 0:
                    first = keys[repeated[0]]
                repeated_count += len(repeated)
        self._row_count += row_count
        if row_count != file.row_count:
            self._report(
                f"{quoted_path} has {row_count:,} rows, its manifest says {file.row_count:,}"
            )
        if repeated_count > 0:
            self._report(
                f"{quoted_path} has {repeated_count:,} rows whose key was there before,"
                f" the first is {first.replace(chr(0), ' ')}"
            )

    @property
    def _format(self) -> FileFormat:
        """The format of the files, from the manifest."""
        return next(each for each in FORMATS if each == self._manifest.format)

    @property
    def _codec(self) -> FileCodec:
        """The codec of a file as a whole; parts of a dataset have none."""
        return self._destination.file_codec if self._destination.kind == "file" else "none"

    def _check_session_count(self) -> None:
        """The run's sessions must be the rows it wrote, in a dataset not those of other runs."""
        manifest = self._manifest
        if manifest.session_count not in {manifest.row_count, manifest.own_row_count}:
            self._report(
                f"the manifest counts {manifest.session_count:,} sessions, and"
                f" {manifest.own_row_count:,} rows in the files of its run"
            )

    def _check_foreign(self) -> None:
        """Report files that a reader of the whole folder would read too."""
        store = self._destination.store
        named = {each.path for each in self._manifest.files}
        for name in sorted(each.name for each in store.list_files()):
            if name not in named and is_read(name):
                self._report(f"'{store.path_of(name)}' is not named by the manifest")


def is_read(name: str) -> bool:
    """Whether query engines read a file of that name: they skip names with a leading `_` or `.`."""
    return not any(part.startswith(("_", ".")) for part in name.split("/"))
