"""The next version of a local folder: built beside it, and put in its place as one act.

A reader of the folder sees all files of one version or all of the other, however many differ. Files
of both versions are linked, not copied, so that open files and locks are those of the new folder
too. The old version stands beside the folder until it is removed.
"""

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.stores.interface import RUN_ID
from exporter.stores.posix import sync_folder, write_all
from exporter.stores.staging import is_partial

SUFFIX: Final = ".generation"

AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2
RENAME_SWAP: Final = 2

MAX_SYNCED: Final = 64
"""Folders that are synced one by one, not with their whole file system."""

MAX_LINKED: Final = 1000
"""Files of both versions: they are linked in about a third of a second."""

IsOwn = Callable[[str], bool]
"""Tells by its name whether a file of the folder is the output's own."""


def replace_generation(
    root: Path,
    *,
    run_id: str,
    is_own: IsOwn,
    added: Mapping[str, Path],
    removed: Collection[str],
    contents: Mapping[str, bytes],
) -> bool:
    """Remove some files of a folder, add others and rewrite some small ones, as one act.

    `added` are files of the same file system by the names they get. False where it cannot be done;
    nothing has changed then. That is so where the folder holds files of others, who may be writing
    them; keeps very many files; is a mount point, or the working folder or around it; or where the
    file system cannot link files or exchange folders.
    """
    if os.path.ismount(root) or root in [cwd := Path.cwd(), *cwd.parents]:
        return False
    fresh = root.with_name(f".{root.name}.{run_id}{SUFFIX}")
    try:
        kept = list(list_own(root, is_own, spared=set(added.values())))
        if len(kept) - len(removed) > MAX_LINKED:
            return False
        copy_folder(root, fresh)
        for name in kept:
            if name not in removed and name not in contents:
                link_file(root, fresh, name, root / name)
        for name, path in added.items():
            link_file(root, fresh, name, path)
        for name, content in contents.items():
            write_file(root, fresh, name, content)
        sync_tree(fresh)
        exchange(fresh, root)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        return False
    sync_folder(root.parent)
    remove_generation(fresh, root, is_own)
    return True


def remove_generations(root: Path, is_own: IsOwn) -> None:
    """Remove the versions left by runs that died while they replaced a folder; never raises."""
    pattern = rf"\.{re.escape(root.name)}\.{RUN_ID}{re.escape(SUFFIX)}"
    with suppress(OSError):
        for path in list(root.parent.iterdir()):
            if re.fullmatch(pattern, path.name):
                remove_generation(path, root, is_own)


def remove_generation(old: Path, root: Path, is_own: IsOwn) -> None:
    """Remove a version that is no longer the folder's, or never was; never raises.

    Files that others put there just before the folders were exchanged move over.
    """
    with suppress(OSError):
        for folder, _, names in os.walk(old, topdown=False):
            for each in names:
                path = Path(folder) / each
                name = str(path.relative_to(old))
                if is_own(name) or is_partial(each):
                    path.unlink(missing_ok=True)
                elif not os.path.lexists(root / name):
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    path.rename(root / name)
            with suppress(OSError):  # a file that has its name in both versions stays
                Path(folder).rmdir()


def list_own(root: Path, is_own: IsOwn, *, spared: Collection[Path]) -> Iterator[str]:
    """The files of the folder by their names, but for the spared ones. Raises OSError for one that
    is not the output's own, or no plain file.
    """
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as scanned:
            entries = list(scanned)
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif path not in spared:
                name = str(path.relative_to(root))
                if not entry.is_file(follow_symlinks=False) or not is_own(name):
                    raise OSError(errno.EBUSY, "a file of somebody else", entry.path)
                yield name


def link_file(root: Path, fresh: Path, name: str, path: Path) -> None:
    make_inner_folders(root, fresh, name)
    os.link(path, fresh / name, follow_symlinks=False)


def write_file(root: Path, fresh: Path, name: str, content: bytes) -> None:
    make_inner_folders(root, fresh, name)
    fd = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with suppress(FileNotFoundError):
            os.fchmod(fd, stat.S_IMODE((root / name).stat().st_mode))
        write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def make_inner_folders(root: Path, fresh: Path, name: str) -> None:
    for inner in reversed(Path(name).parents[:-1]):
        if not (fresh / inner).is_dir():
            copy_folder(root / inner, fresh / inner)


def copy_folder(model: Path, folder: Path) -> None:
    """Make a folder with the owner and the permissions of the model, if there is one."""
    folder.mkdir()
    if not model.is_dir():
        return
    wanted, found = model.stat(), folder.stat()
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
        os.chown(folder, wanted.st_uid, wanted.st_gid)
    shutil.copystat(model, folder)
    if stat.S_IMODE(folder.stat().st_mode) != stat.S_IMODE(wanted.st_mode):
        raise OSError(errno.EPERM, "another mode", str(folder))


def sync_tree(folder: Path) -> None:
    """Make all names in it survive a power cut, before it gets its name."""
    folders = [Path(each) for each, _, _ in os.walk(folder)]
    libc = ctypes.CDLL(None, use_errno=True)
    # It syncs the whole file system, with the writes of others: worth it only for many folders.
    if len(folders) > MAX_SYNCED and hasattr(libc, "syncfs"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if libc.syncfs(fd) == 0:
                return
        finally:
            os.close(fd)
    for each in folders:
        sync_folder(each)


def exchange(one: Path, other: Path) -> None:
    """Exchange two names, as one act. Raises OSError where the system cannot.

    https://man7.org/linux/man-pages/man2/rename.2.html, RENAME_EXCHANGE; macOS: renamex_np.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)
    elif sys.platform == "darwin":
        failed = libc.renamex_np(first, second, RENAME_SWAP)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if failed != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
