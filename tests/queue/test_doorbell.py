"""The doorbell wakes; nothing depends on it."""

from pathlib import Path

from darkroom.queue import doorbell
from darkroom.queue.doorbell import Doorbell


def test_a_ring_wakes_who_waits(tmp_path: Path) -> None:
    path = doorbell.address(tmp_path, "worker")
    with Doorbell(path) as bell:
        doorbell.ring(path)

        assert bell.wait(3600)  # which a test may not take
        assert not bell.wait(0)  # one ring, one waking


def test_a_ring_that_nobody_hears_is_fine(tmp_path: Path) -> None:
    doorbell.ring(tmp_path / "nobody.bell")


def test_the_folder_may_have_any_length(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    path = doorbell.address(deep, "web")

    with Doorbell(path) as bell:
        doorbell.ring(path)
        assert bell.wait(60)


def test_the_folders_file_system_need_not_take_sockets() -> None:
    path = doorbell.address(Path("/sys"), "web")  # refuses them as SMB, SSHFS and exFAT do
    with Doorbell(path) as bell:
        doorbell.ring(path)
        assert bell.wait(60)


def test_a_ring_wakes_everyone_at_the_address_and_nobody_else(tmp_path: Path) -> None:
    path = doorbell.address(tmp_path, "worker")
    other = doorbell.address(tmp_path, "web")
    with Doorbell(path) as one, Doorbell(path) as two, Doorbell(other) as web:
        doorbell.ring(path)

        assert one.wait(60)
        assert two.wait(60)
        assert not web.wait(0)


def test_bells_left_by_dead_processes_are_taken_away(tmp_path: Path) -> None:
    path = doorbell.address(tmp_path, "web")
    dead = Doorbell(path)
    dead._socket.close()  # as the kernel does after kill -9; the file stays

    with Doorbell(path) as bell:
        doorbell.ring(path)
        assert bell.wait(60)
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
