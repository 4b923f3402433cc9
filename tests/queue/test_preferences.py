"""What clients set for themselves."""

from pathlib import Path

from darkroom.storage.clients import Preferences
from darkroom.storage.database import Database


def test_each_client_has_settings_of_their_own(opened: Database, tmp_path: Path) -> None:
    preferences = Preferences(opened)
    preferences.change("device:a", {"model": "one", "layers": 2})
    preferences.change("device:b", {"model": "two"})
    preferences.change("device:a", {"layers": None})

    later = Database(tmp_path / "darkroom.db")
    assert Preferences(later).of("device:a") == {"model": "one"}
    assert Preferences(later).of("device:b") == {"model": "two"}
    assert Preferences(later).of("device:c") == {}
    later.close()
