"""Builds the mobile client when the server is packaged or installed from source."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CLIENT = Path("server/darkroom/client/index.html")


class ClientBuildHook(BuildHookInterface):
    """Puts the built client where the wheel and the sdist take it from.

    A wheel made from an sdist takes the client that lies in it.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        folder = Path(self.root) / "mobile_client"
        if not (folder / "build_client.py").is_file():
            if not (Path(self.root) / CLIENT).is_file():
                raise RuntimeError("there is neither the mobile client nor its source")
            return
        sys.path.insert(0, str(folder))
        import build_client

        try:
            build_client.build()
        except (OSError, build_client.NodeMissingError, subprocess.CalledProcessError) as error:
            if version != "editable":
                raise
            # Whoever works on the server without the internet can still do so; the page at `/`
            # then says how to get the client.
            self.app.display_warning(f"the mobile client was not built: {error}")
