"""What clients set for themselves."""

from pathlib import Path

from darkroom.storage.clients import Preferences
from darkroom.storage.database import Database


def test_each_client_has_settings_of_their_own(opened: Database, tmp_path: Path) -> None:
    preferences = Preferences(opened)
    preferences.change("token:a", {"model": "one", "layers": 2})
    preferences.change("token:b", {"model": "two"})
    preferences.change("token:a", {"layers": None})

    later = Database(tmp_path / "darkroom.db")
    assert Preferences(later).of("token:a") == {"model": "one"}
    assert Preferences(later).of("token:b") == {"model": "two"}
    assert Preferences(later).of("token:c") == {}
    later.close()
