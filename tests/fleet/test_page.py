"""docs/scale-out.md: what it says to type is what there is.

What the commands do is in the other tests of this folder.
"""

import re
import shlex
import tomllib

import click
import pytest
import yaml
from sqlalchemy import create_engine

import darkroom.fleet_cli  # noqa: F401 - adds its commands
from darkroom.cli import main
from darkroom.config import Settings
from tests.postgres import Server
from tests.test_docs import ROOT, blocks

PAGE = (ROOT / "docs" / "scale-out.md").read_text()
LINES = [line for block in blocks("sh", PAGE) for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("darkroom ")])
def test_each_command_takes_what_is_written(line: str) -> None:
    command: click.Command = main
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]

    command.parse_args(click.Context(command), words)  # raises otherwise


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`darkroom (fleet [a-z]+|join)", PAGE))))
def test_each_command_that_is_told_of_exists(name: str) -> None:
    command: click.Command = main
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]


def test_the_extras_exist() -> None:
    (line,) = (line for line in LINES if line.startswith("pip install"))
    named = re.findall(r"[a-z0-9]+", line.partition("[")[2].partition("]")[0])

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named
    assert set(named) <= project["optional-dependencies"].keys()


def test_the_settings_are_settings() -> None:
    (text,) = blocks("yaml", PAGE)

    settings = Settings(**yaml.safe_load(text))

    assert settings.tls.mode == "local_ca"
    assert settings.storage.database_url is not None
    assert settings.fleet.address == "10.77.0.1"


def test_the_database_is_one_whose_owner_may_make_roles(postgres_server: Server) -> None:
    (statements,) = blocks("sql", PAGE)
    url = postgres_server.url("page")
    for statement in statements.replace("darkroom", "page").split(";"):
        if statement.strip():
            postgres_server.execute(statement)

    engine = create_engine(url.set(username="page"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE of_a_box LOGIN")
        connection.exec_driver_sql("DROP ROLE of_a_box")
        connection.exec_driver_sql("CREATE TABLE one (id integer)")
    engine.dispose()
