"""What clients set for themselves."""

from darkroom.storage.clients import Preferences
from darkroom.storage.database import Database, Place


def test_each_client_has_settings_of_their_own(opened: Database, place: Place) -> None:
    preferences = Preferences(opened)
    preferences.change("device:a", {"model": "one", "layers": 2})
    preferences.change("device:b", {"model": "two"})
    preferences.change("device:a", {"layers": None})

    later = Database(place)
    assert Preferences(later).of("device:a") == {"model": "one"}
    assert Preferences(later).of("device:b") == {"model": "two"}
    assert Preferences(later).of("device:c") == {}
    later.close()
