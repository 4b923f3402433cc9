"""docker-compose.yml: valid, documented, and shut where it should be. Docker is not asked."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator
from sqlalchemy import create_engine

from tests.postgres import Server

ROOT = Path(__file__).parent.parent.parent
FILES = ("docker-compose.yml", "docker-compose.cpu.yml")
PAGE = (ROOT / "docs" / "deployment.md").read_text()
SCALE_OUT = ROOT / "docs" / "scale-out.md"
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


class Loader(yaml.SafeLoader):
    """Reads Compose's own tags too: `!reset` and `!override` take away what another file gives."""


Loader.add_constructor("!reset", lambda _loader, _node: None)
Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load((ROOT / name).read_text(), Loader)
    return content


COMPOSE = read("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ALWAYS = {name for name, service in SERVICES.items() if "profiles" not in service}


@pytest.mark.parametrize("name", FILES)
def test_files_are_what_the_compose_specification_says(name: str) -> None:
    problems = Draft7Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(read(name))

    assert [f"{list(problem.path)}: {problem.message}" for problem in problems] == []


def test_up_starts_web_and_worker_and_a_profile_the_rest() -> None:
    assert {"web", "worker"} == ALWAYS
    for name in SERVICES.keys() - ALWAYS:
        assert SERVICES[name]["profiles"] in (["monitoring"], ["fleet"])


def test_every_variable_is_on_the_page_with_its_default() -> None:
    for name in FILES:
        for variable, _, default in VARIABLE.findall((ROOT / name).read_text()):
            (row,) = re.findall(rf"^\| `{variable}` \| (.*?) \|", PAGE, re.MULTILINE)
            assert row == (f"`{default}`" if default else ""), variable


def test_no_variable_has_to_be_set_for_those_who_do_not_use_it() -> None:
    """Compose fills in all services, those of profiles that are off too."""
    for name in FILES:
        for variable, operator, _ in VARIABLE.findall((ROOT / name).read_text()):
            assert operator == ":-", variable


def test_without_a_gpu_no_image_for_gpus_is_built() -> None:
    """A service that the second file forgets would be built with CUDA."""
    ours = {name for name, service in SERVICES.items() if service["image"] == "darkroom:cuda"}
    without = read("docker-compose.cpu.yml")["services"]

    assert without.keys() == ours
    assert {service["image"] for service in without.values()} == {"darkroom:cpu"}


def test_what_is_mounted_is_there() -> None:
    named = set()
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source = VARIABLE.sub(lambda found: found[3], volume).split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                named.add(source)

    assert named == COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_may_do_more_than_it_must(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "devices"} & service.keys()
    assert "docker.sock" not in json.dumps(service)
    assert set(service.get("cap_add", ())) <= {"SETUID", "SETGID"}
    _, _, version = service["image"].rpartition(":")
    assert version not in ("", "latest")


def test_monitoring_is_for_this_machine_alone() -> None:
    """On the machine's network, so nothing but the address keeps others out."""
    command = " ".join(SERVICES["prometheus"]["command"])
    (address,) = re.findall(r"--web\.listen-address=([\d.]+):", command)
    grafana = SERVICES["grafana"]["environment"]

    assert address == "127.0.0.1"
    assert VARIABLE.sub(lambda found: found[3], grafana["GF_SERVER_HTTP_ADDR"]) == "127.0.0.1"
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["GF_USERS_ALLOW_SIGN_UP"] == "false"


@pytest.mark.parametrize("password", ["GRAFANA_PASSWORD", "FLEET_PASSWORD"])
def test_who_takes_strangers_requests_is_not_told_passwords_of_others(password: str) -> None:
    assert SERVICES["web"]["environment"][password] == ""


def test_boxes_do_not_get_the_databases_password() -> None:
    """What they get is the store's key."""
    key = SERVICES["store"]["environment"]["AWS_SECRET_ACCESS_KEY"]
    assert "FLEET_PASSWORD" in SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert "FLEET_PASSWORD" not in key

    (written,) = re.findall(r"```sh\n(FLEET_IMAGE=.*?)```", SCALE_OUT.read_text(), re.DOTALL)
    values = dict(line.split("=", 1) for line in written.splitlines())
    assert values["AWS_SECRET_ACCESS_KEY"] == values["FLEET_STORE_KEY"] != values["FLEET_PASSWORD"]
    assert values["FLEET_PASSWORD"] in values["DARKROOM_STORAGE__DATABASE_URL"]


def test_grafana_does_not_begin_without_a_password() -> None:
    shell, option, guard = SERVICES["grafana"]["entrypoint"]
    guarded = guard.replace("$$", "$").replace("/run.sh", "echo Grafana")

    def begin(password: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "GF_SECURITY_ADMIN_PASSWORD": password}
        return subprocess.run(
            [shell, option, guarded],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert begin("secret").stdout == "Grafana\n"
    refused = begin("")
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert "write GRAFANA_PASSWORD=... into .env" in refused.stderr


def test_what_boxes_share_listens_on_their_network_alone() -> None:
    """They are on the machine's network, so nothing but the address keeps others out."""
    for name, options in (("postgres", r"listen_addresses=(\S+)"), ("store", r"-ip\.bind=(\S+)")):
        command = VARIABLE.sub(lambda found: found[3], " ".join(SERVICES[name]["command"]))
        assert re.findall(options, command) == ["127.0.0.1"], name
        assert "${FLEET_ADDRESS:-127.0.0.1}" in " ".join(SERVICES[name]["command"])


def test_the_store_does_not_begin_without_a_password() -> None:
    shell, option, guard, name = SERVICES["store"]["entrypoint"]
    guarded = guard.replace("$$", "$").replace("exec weed", "echo")

    def begin(password: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": password}
        return subprocess.run(
            [shell, option, guarded, name, *SERVICES["store"]["command"][:2]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert begin("secret").stdout == "server -dir=/data\n"
    assert begin("").returncode != 0
    assert "write FLEET_STORE_KEY=... into .env" in begin("").stderr


def test_the_first_boxs_role_makes_roles_and_is_no_superuser(postgres_server: Server) -> None:
    """What the database's image runs once, here on a server of the tests' own."""
    script = (ROOT / "deploy" / "fleet" / "role.sh").read_text()
    environment = {**os.environ, "POSTGRES_PASSWORD": "it's", "PGHOST": str(postgres_server.folder)}
    own = script.replace("darkroom", "of_compose")
    subprocess.run(["sh", "-c", own], env=environment, check=True, capture_output=True)

    engine = create_engine(postgres_server.url("of_compose"))
    with engine.connect() as connection:
        role = "SELECT rolcreaterole, rolsuper FROM pg_roles WHERE rolname = 'of_compose'"
        assert tuple(connection.exec_driver_sql(role).one()) == (True, False)
    engine.dispose()
