import errno
import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exporter.errors import DestinationError
from exporter.stores.local import LocalStore
from exporter.stores.posix import translated
from exporter.stores.staging import PartialFile, create_exclusively


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def stage(path: Path, *, run_id: str = "run-1") -> PartialFile:
    return LocalStore(str(path.parent)).stage(path.name, run_id=run_id)


def publish(path: Path, content: bytes, *, run_id: str = "run-1") -> None:
    staged = stage(path, run_id=run_id)
    staged.write(content)
    staged.sync()
    staged.publish()


def leave_dead_run(path: Path, run_id: str) -> None:
    """A run that is killed while it writes, without Python's own clean-up."""
    program = (
        "import os, signal; from exporter.stores.local import LocalStore\n"
        f"staged = LocalStore({str(path.parent)!r}).stage({path.name!r}, run_id={run_id!r})\n"
        "staged.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -signal.SIGKILL


@pytest.fixture
def small_file_limit() -> Iterator[int]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    yield 1 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_reader_sees_the_old_file_until_publish(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    publish(path, b"old")

    staged = stage(path, run_id="run-2")
    staged.write(b"new")
    staged.sync()
    before = path.read_bytes()
    staged.publish()

    assert (before, path.read_bytes()) == (b"old", b"new")
    assert names(tmp_path) == {"out.parquet"}


def test_discard_leaves_what_was_published_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    publish(path, b"old")
    staged = stage(path, run_id="run-2")
    staged.write(b"new" * 100_000)

    staged.discard()
    staged.discard()

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"out.parquet"}


def test_discard_after_publish_keeps_the_file(tmp_path: Path) -> None:
    staged = stage(tmp_path / "out.parquet")
    staged.publish()

    staged.discard()

    assert names(tmp_path) == {"out.parquet"}


def test_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "real.parquet"
    target.write_bytes(b"old")
    link = tmp_path / "latest.parquet"
    link.symlink_to(target)

    publish(link, b"new")

    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == {"disk", "latest.parquet"}


def test_new_file_has_the_mode_that_open_would_give_it(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        publish(tmp_path / "out.parquet", b"new")
    finally:
        os.umask(previous)

    assert stat.S_IMODE((tmp_path / "out.parquet").stat().st_mode) == 0o640


def test_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"old")
    path.chmod(0o600)

    publish(path, b"new")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_run_holds_a_lock_on_its_partial(tmp_path: Path) -> None:
    staged = stage(tmp_path / "out.parquet")
    fd = os.open(tmp_path / ".out.parquet.run-1.partial", os.O_RDWR)

    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    os.close(fd)
    staged.discard()


def test_leftovers_of_dead_runs_are_removed(tmp_path: Path) -> None:
    leave_dead_run(tmp_path / "out.parquet", "dead-1")
    leave_dead_run(tmp_path / "out.parquet", "dead-2")
    assert len(names(tmp_path)) == 2

    LocalStore(str(tmp_path)).remove_leftovers(["out.parquet"])

    assert names(tmp_path) == set()


def test_leftovers_beside_the_target_of_a_link_are_removed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "latest.parquet").symlink_to(tmp_path / "disk" / "real.parquet")
    leave_dead_run(tmp_path / "latest.parquet", "dead")
    assert len(names(tmp_path / "disk")) == 1

    LocalStore(str(tmp_path)).remove_leftovers(["latest.parquet"])

    assert names(tmp_path / "disk") == set()


def test_files_of_live_runs_and_of_other_outputs_are_left_alone(tmp_path: Path) -> None:
    live = stage(tmp_path / "out.parquet", run_id="live")
    leave_dead_run(tmp_path / "out.parquet.bak", "dead")
    (tmp_path / ".out.parquet.notes").write_text("mine")
    before = names(tmp_path)

    LocalStore(str(tmp_path)).remove_leftovers(["out.parquet"])

    assert names(tmp_path) == before
    live.publish()


def test_leftovers_under_any_name_go_with_the_folders_they_leave_empty(tmp_path: Path) -> None:
    (tmp_path / "dt=1" / "deeper").mkdir(parents=True)
    leave_dead_run(tmp_path / "dt=1" / "deeper" / "part.parquet", "dead")
    live = stage(tmp_path / "other.parquet")
    (tmp_path / "notes.txt").write_text("mine")

    LocalStore(str(tmp_path)).remove_leftovers()

    assert names(tmp_path) == {"notes.txt", ".other.parquet.run-1.partial"}
    live.discard()


def test_released_file_holds_nothing_open_and_is_published_as_any_other(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    staged = stage(tmp_path / "out.parquet")
    staged.write(b"new")
    staged.sync()

    staged.release()
    staged.release()
    open_count = len(list(Path("/proc/self/fd").iterdir())) - before
    hidden = names(tmp_path)
    staged.publish()
    staged.discard()

    assert open_count == 0
    assert hidden == {".out.parquet.run-1.partial"}
    assert (tmp_path / "out.parquet").read_bytes() == b"new"
    assert names(tmp_path) == {"out.parquet"}


def test_released_file_of_a_dead_run_is_a_leftover(tmp_path: Path) -> None:
    staged = stage(tmp_path / "out.parquet")
    staged.sync()
    staged.release()

    LocalStore(str(tmp_path)).remove_leftovers()

    assert names(tmp_path) == set()
    with pytest.raises(DestinationError, match="No such file"):
        staged.publish()
    staged.discard()


def test_discard_takes_the_folders_that_it_leaves_empty(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    staged = [store.stage(f"dt=1/{name}/part", run_id="run-1") for name in ("a", "b")]

    staged[0].discard()
    after_one = names(tmp_path / "dt=1")
    staged[1].discard()

    assert after_one == {"b"}
    assert names(tmp_path) == set()


@pytest.mark.parametrize("url", ["missing", "missing/deeper"])
def test_leftovers_of_a_missing_folder_are_no_error(url: str, tmp_path: Path) -> None:
    LocalStore(str(tmp_path / url)).remove_leftovers(["out.parquet"])
    LocalStore(str(tmp_path / url)).remove_leftovers()


def test_disk_that_fills_up_publishes_nothing(tmp_path: Path, small_file_limit: int) -> None:
    path = tmp_path / "out.parquet"
    publish(path, b"old")
    staged = stage(path, run_id="run-2")

    with pytest.raises(DestinationError, match="File too large") as caught:
        staged.write(b"x" * (small_file_limit + 1))
    staged.discard()

    assert caught.value.hint is not None
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"out.parquet"}


def test_write_protected_file_is_refused_at_once(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "out.parquet").touch(0o400)

    with pytest.raises(DestinationError, match="write-protected"):
        stage(tmp_path / "out.parquet")


def test_folder_without_permission_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)

    with pytest.raises(DestinationError, match="Permission denied") as caught:
        stage(tmp_path / "out.parquet")

    assert str(tmp_path) in str(caught.value.hint)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.EACCES, "check who may write to the folder /data"),
        (errno.EROFS, "file system that can be written"),
        (errno.ENOSPC, "free some space where /data is"),
        (errno.EDQUOT, "free some space where /data is"),
    ],
)
def test_error_of_the_system_has_its_remedy(code: int, hint: str) -> None:
    with (
        pytest.raises(DestinationError, match=r"/data/out\.parquet") as caught,
        translated("/data/out.parquet"),
    ):
        raise OSError(code, os.strerror(code))

    assert hint in str(caught.value.hint)


def test_folder_of_the_store_is_made_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="No such file") as caught:
        LocalStore(str(tmp_path / "new")).replace("inner/file", b"x")
    LocalStore(str(tmp_path / "made"), makes_folder=True).replace("inner/file", b"x")

    assert caught.value.hint == f"mkdir -p {tmp_path / 'new'}"
    assert names(tmp_path) == {"made"}
    assert (tmp_path / "made" / "inner" / "file").read_bytes() == b"x"


def test_folders_below_the_working_folder_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, name = LocalStore.holding("out.parquet")

    store.replace(f".{name}.journal/page-1", b"x")

    assert (tmp_path / ".out.parquet.journal" / "page-1").read_bytes() == b"x"
    assert [each.name for each in store.list_files()] == [".out.parquet.journal/page-1"]


@pytest.mark.parametrize(
    ("path", "url", "name", "again"),
    [
        ("out", "", "out", "out"),
        ("./out", ".", "out", "./out"),
        ("/out", "/", "out", "/out"),
        ("//out", "/", "out", "/out"),
        ("a/b/out", "a/b", "out", "a/b/out"),
        ("../out", "..", "out", "../out"),
    ],
)
def test_path_is_a_folder_and_a_name_in_it(path: str, url: str, name: str, again: str) -> None:
    store, found = LocalStore.holding(path)

    assert (store.url, found, store.path_of(found)) == (url, name, again)


def test_published_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.replace("dt=1/a", b"1")
    store.replace("dt=2/b", b"22")
    store.replace("c", b"333")
    (tmp_path / "dangling").symlink_to("nowhere")
    live = store.stage("dt=1/on-its-way", run_id="run-1")

    sizes = {each.name: each.size_bytes for each in store.list_files()}
    assert sizes == {"dt=1/a": 1, "dt=2/b": 2, "c": 3}
    assert [each.name for each in store.list_files("dt=2/")] == ["dt=2/b"]
    assert [each.name for each in store.list_files("dt=1/a")] == ["dt=1/a"]
    live.discard()


def test_removed_files_take_empty_folders_with_them_but_not_the_store(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"), makes_folder=True)
    store.replace("dt=1/deeper/a", b"1")
    store.replace("dt=1/b", b"1")

    store.remove(["dt=1/deeper/a", "dt=1/deeper/a", "never/was"])
    after_one = {path.name for path in (tmp_path / "store").rglob("*")}
    store.remove(["dt=1/b"])

    assert after_one == {"dt=1", "b"}
    assert names(tmp_path / "store") == set()


def test_missing_file_is_none_or_an_error(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))

    assert (store.read("no"), store.size_of("no")) == (None, None)
    with pytest.raises(DestinationError, match="cannot read"):
        store.open_input("no")


def test_small_file_is_created_once(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "new"), makes_folder=True)

    written = [store.create("_exporter/lock", b"1"), store.create("_exporter/lock", b"2")]

    assert written == [True, False]
    assert store.read("_exporter/lock") == b"1"
    assert names(tmp_path / "new" / "_exporter") == {"lock"}


def link_refused(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_without_links_creates_once_too(code: int, tmp_path: Path) -> None:
    def link(source: Path, target: str) -> None:
        raise link_refused(code)

    path = str(tmp_path / "lock")
    written = [create_exclusively(path, content, link=link) for content in (b"1", b"2")]

    assert written == [True, False]
    assert Path(path).read_bytes() == b"1"
    assert names(tmp_path) == {"lock"}


def test_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def link(source: Path, target: str) -> None:
        raise link_refused(errno.EIO)

    with pytest.raises(DestinationError, match="Input/output error"):
        create_exclusively(str(tmp_path / "lock"), b"1", link=link)

    assert names(tmp_path) == set()


def test_full_disk_without_links_leaves_no_half_file(tmp_path: Path, small_file_limit: int) -> None:
    def link(source: Path, target: str) -> None:
        source.write_bytes(b"")
        raise link_refused(errno.EPERM)

    with pytest.raises(DestinationError, match="File too large"):
        create_exclusively(str(tmp_path / "lock"), b"x" * (small_file_limit + 1), link=link)

    assert names(tmp_path) == set()


def test_of_many_threads_exactly_one_creates(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))

    for round_number in range(20):
        name = f"_exporter/lock-{round_number}"
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda n, name=name: store.create(name, b"%d" % n), range(8)))

        assert won.count(True) == 1
        assert store.read(name) == b"%d" % won.index(True)


def test_of_many_processes_exactly_one_creates_and_all_see_it_whole(tmp_path: Path) -> None:
    program = (
        "import sys; from exporter.stores.local import LocalStore\n"
        f"store = LocalStore({str(tmp_path)!r})\n"
        "sys.stdin.readline()\n"
        "content = sys.argv[1].encode() * 100_000\n"
        "for n in range(50):\n"
        "    print(int(store.create(f'lock-{n}', content)))\n"
        "    assert len(store.read(f'lock-{n}')) == 100_000\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    answers = [process.communicate("go\n")[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [sum(map(int, won)) for won in zip(*answers, strict=True)] == [1] * 50


def test_folder_that_others_remove_meanwhile_is_made_again(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))

    def create_and_remove(number: int) -> None:
        for attempt in range(200):
            name = f"_exporter/file-{number}-{attempt}"
            assert store.create(name, b"x")
            store.remove([name])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(create_and_remove, range(2)))

    assert names(tmp_path) == set()


def test_replaced_small_file_is_never_seen_half(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    contents = [bytes([number]) * 50_000 for number in range(8)]
    store.replace("state", contents[0])

    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(store.replace, "state", content) for content in contents * 5]
        seen = {store.read("state") for _ in range(200)}
        for write in writes:
            write.result()

    assert seen <= set(contents)
    assert names(tmp_path) == {"state"}


def test_order_survives_a_power_cut(tmp_path: Path) -> None:
    """Content first, then the name, then the folder that holds the name."""
    program = (
        "from exporter.stores.local import LocalStore\n"
        f"store = LocalStore({str(tmp_path)!r})\n"
        "store.replace('state', b'new')\n"
        "store.create('lock', b'new')\n"
    )
    trace = tmp_path.with_name("trace")
    try:
        subprocess.run(
            ["strace", "-f", "-o", str(trace), "-e", "trace=fsync,rename,link,linkat,renameat",  # noqa: S607
             sys.executable, "-c", program],
            check=True, capture_output=True,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no strace here, or it may not trace")

    calls = [line.split(maxsplit=1)[1].split("(")[0] for line in trace.read_text().splitlines()
             if "(" in line]  # fmt: skip
    assert calls in (
        ["fsync", "rename", "fsync", "fsync", "link", "fsync"],
        ["fsync", "renameat", "fsync", "fsync", "linkat", "fsync"],
        ["fsync", "rename", "fsync", "fsync", "linkat", "fsync"],
    )
