"""Every command of docs/security.md is run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.doors import new_code, pair
from tests.serving import RunningServer
from tests.test_docs import ROOT, at, blocks, shell

PAGE = (ROOT / "docs" / "security.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh", PAGE))
def test_each_command_runs(server: RunningServer, tmp_path: Path, block: str) -> None:
    if "--device" in block:
        pair(server, new_code(server), "iPhone")  # the known device that the page speaks of
    binaries = Path(sys.executable).parent
    shell(
        at(server, block),
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "DARKROOM_DATA_DIR": str(server.data_dir),
        },
        stdout=subprocess.DEVNULL,
    )


def test_every_setting_that_it_names_exists() -> None:
    written = (ROOT / "config.yaml").read_text()

    named = set(re.findall(r"`(auth|tls|web)\.(\w+)", PAGE))
    assert named
    for section, name in named:
        assert re.search(rf"^{section}:\n(?:  .*\n)*?  {name}:", written, re.MULTILINE)
