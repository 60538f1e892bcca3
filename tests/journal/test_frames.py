from pathlib import Path

import pytest

from exporter.journal.frames import HEADER, FrameFile, build_frame

PAYLOADS = (b"first", b"", b"the third one")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = FrameFile(tmp_path / "frames")
    for count, payload in enumerate(PAYLOADS):
        file.append(build_frame(payload, count=count, written_ms=1000 + count))
    file.close()
    return file.path


def read_payloads(path: Path) -> list[bytes]:
    file = FrameFile(path)
    payloads = [frame.payload for frame in file.read()]
    file.close()
    return payloads


def test_frames_are_read_as_they_were_written(path: Path) -> None:
    file = FrameFile(path)
    frames = list(file.read())
    file.close()

    assert [frame.payload for frame in frames] == list(PAYLOADS)
    assert [(frame.count, frame.written_ms) for frame in frames] == [
        (0, 1000),
        (1, 1001),
        (2, 1002),
    ]
    assert frames[-1].end == path.stat().st_size == file.found_bytes


def test_reading_starts_where_a_frame_ends(path: Path) -> None:
    file = FrameFile(path)
    first = next(file.read())
    rest = [frame.payload for frame in file.read(first.end)]
    file.close()

    assert rest == list(PAYLOADS[1:])


def test_frame_that_is_cut_off_at_any_byte_is_none(path: Path) -> None:
    whole = path.read_bytes()
    last_bytes = HEADER.size + len(PAYLOADS[-1])

    for cut in range(1, last_bytes + 1):
        path.write_bytes(whole[:-cut])

        assert read_payloads(path) == list(PAYLOADS[:-1])


def test_any_flipped_bit_ends_the_file_before_its_frame(path: Path) -> None:
    whole = path.read_bytes()
    second = HEADER.size + len(PAYLOADS[0])
    third = second + HEADER.size + len(PAYLOADS[1])

    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)

            good_count = (place >= second) + (place >= third)
            assert read_payloads(path) == list(PAYLOADS[:good_count])


def test_frame_is_appended_in_place_of_what_was_cut_off(path: Path) -> None:
    file = FrameFile(path)
    first = next(file.read())
    file.cut(first.end)
    file.append(build_frame(b"another", count=1, written_ms=0))
    file.close()

    assert read_payloads(path) == [PAYLOADS[0], b"another"]


def test_second_writer_is_refused(path: Path) -> None:
    file = FrameFile(path)

    with pytest.raises(BlockingIOError):
        FrameFile(path)

    file.close()
    FrameFile(path).close()


def test_file_is_for_its_owner_only(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    (tmp_path / "frames").symlink_to(elsewhere)

    with pytest.raises(OSError, match="symbolic"):
        FrameFile(tmp_path / "frames")


def test_removed_file_is_gone_and_a_new_one_can_take_its_place(path: Path) -> None:
    file = FrameFile(path)
    file.remove()

    assert not path.exists()
    assert read_payloads(path) == []
