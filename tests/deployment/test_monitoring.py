"""Alerts and the dashboard, by a real Prometheus from the metrics of a real server."""

import json
import os
import re
import stat
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from darkroom.requests import Scope
from tests.deployment.prometheus import (
    MONITORING,
    Prometheus,
    metrics_in,
    prometheus,
    promtool,
    write_target,
)
from tests.security.doors import tokens_in
from tests.serving import RunningServer

pytestmark = pytest.mark.slow

NOBODY = 65534
HISTOGRAM = ("_bucket", "_sum", "_count")
# A variable of Grafana, and about the value that it has.
RATE_INTERVAL = "$__rate_interval", "1m"

RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana" / "darkroom.json").read_text())
EXPRESSIONS = {
    (panel["title"], target["refId"]): target["expr"].replace(*RATE_INTERVAL)
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}


@pytest.fixture(scope="module")
def target_folder(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Prometheus is told of the server."""
    folder = tmp_path_factory.mktemp("target_folder")
    url = httpx2.URL(server.url)
    write_target(server.data_dir, folder, DARKROOM_HOST=url.host, DARKROOM_PORT=str(url.port))
    return folder


@pytest.fixture(scope="module")
def watching(
    server: RunningServer, target_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the server after it made a picture."""
    server.txt2img()
    with prometheus(target_folder, tmp_path_factory.mktemp("prometheus")) as started:
        started.wait_for(lambda one: bool(one.query("darkroom_engine_tick_seconds_count > 0")))
        yield started


@pytest.fixture(scope="module")
def names(server: RunningServer) -> set[str]:
    """Every name that `/metrics` can have samples of, once a job was promised a time."""
    for _ in range(2):
        server.txt2img()
    found = set()
    for family in text_string_to_metric_families(server.http.get("/metrics").text):
        found |= {sample.name for sample in family.samples}
        match family.type:
            case "counter":
                found.add(f"{family.name}_total")
            case "histogram":
                found |= {family.name + suffix for suffix in HISTOGRAM}
            case _:
                found.add(family.name)
    return found


# --- alarms --------------------------------------------------------------------------------


def test_prometheus_reads_the_configuration(tmp_path: Path, target_folder: Path) -> None:
    config = (MONITORING / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(config.replace("/run/darkroom", str(target_folder)))
    (tmp_path / "rules.yml").write_text((MONITORING / "rules.yml").read_text())

    assert "SUCCESS" in promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_each_alarm_fires_when_it_should_and_not_before() -> None:
    file = Path(__file__).parent / "rules.test.yml"
    tested = yaml.safe_load(file.read_text())["tests"]
    cases = [case for test in tested for case in test["alert_rule_test"]]
    loud = {case["alertname"] for case in cases if case.get("exp_alerts")}
    quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}

    assert loud == quiet == {rule["alert"] for rule in RULES}
    promtool("test", "rules", str(file))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alarms_are_of_metrics_that_there_are(rule: dict[str, Any], names: set[str]) -> None:
    assert metrics_in(rule["expr"]) <= names


def test_a_real_prometheus_gets_in_by_its_token_and_finds_nothing_wrong(
    watching: Prometheus,
) -> None:
    def evaluated(one: Prometheus) -> bool:
        (group,) = one.get("rules")["groups"]
        return all(rule["health"] == "ok" for rule in group["rules"])

    watching.wait_for(evaluated)

    assert [float(up["value"][1]) for up in watching.query('up{job="darkroom"}')] == [1]
    (group,) = watching.get("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in RULES]
    critical = {rule["alert"] for rule in RULES if rule["labels"]["severity"] == "critical"}
    firing = {alert["labels"]["alertname"] for alert in watching.get("alerts")["alerts"]}
    assert not firing & critical


# --- how Prometheus gets in ----------------------------------------------------------------


def test_the_token_is_kept_while_it_is_good_and_replaced_when_it_is_not(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "target_folder"
    data.mkdir()
    folder.mkdir()

    def issued() -> str:
        """The token in the file, and that it alone is good."""
        write_target(data, folder, DARKROOM_PORT="8443", DARKROOM_TLS__MODE="local_ca")
        secret = (folder / "token").read_text()
        with tokens_in(data) as tokens:
            (known,) = tokens.good()
            assert tokens.find(secret).id == known.id
            assert (known.name, known.scope) == ("prometheus", Scope.USE)
        return secret

    first = issued()
    assert issued() == first
    (folder / "token").write_text("something else")
    assert issued() != first
    (target,) = json.loads((folder / "target.json").read_text())
    assert target == {"targets": ["localhost:8443"], "labels": {"__scheme__": "https"}}
    assert {path.name for path in folder.iterdir()} == {"token", "target.json"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_root_opens_the_database_as_the_user_whose_it_is() -> None:
    with TemporaryDirectory() as made:  # pytest's folders are root's alone
        folder = Path(made)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir()
        os.chown(data, NOBODY, NOBODY)

        with_what_compose_leaves = ["setpriv", "--no-new-privs", "--bounding-set"]
        with_what_compose_leaves += ["-all,+setuid,+setgid"]
        write_target(data, folder, *with_what_compose_leaves)

        assert {path.stat().st_uid for path in data.iterdir()} == {NOBODY}
        assert (folder / "token").stat().st_uid == 0
        assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o644


# --- the dashboard -------------------------------------------------------------------------


@pytest.mark.parametrize("place", EXPRESSIONS, ids=" ".join)
def test_the_dashboard_asks_what_prometheus_can_answer(
    watching: Prometheus, names: set[str], place: tuple[str, str]
) -> None:
    expression = EXPRESSIONS[place]

    assert metrics_in(expression) <= names
    watching.query(expression)


def test_most_of_the_dashboard_shows_something_on_an_idle_server(watching: Prometheus) -> None:
    """All but what needs changes between two scrapes, or failures."""
    at_once = {place: text for place, text in EXPRESSIONS.items() if "rate(" not in text}
    rare = {"darkroom_job_failures_total"}

    for place, expression in at_once.items():
        if not metrics_in(expression) & rare:
            assert watching.query(expression), place


def test_labels_are_those_that_metrics_have(watching: Prometheus) -> None:
    known = {*watching.get("labels"), "kind", "alertstate"}
    said = "\n".join((*EXPRESSIONS.values(), *(rule["expr"] for rule in RULES)))
    used = set(re.findall(r'(\w+)(?:=~|!=|!~|=)"', said))
    used |= {
        name for group in re.findall(r"(?:by|on) \(([^)]*)\)", said) for name in group.split(", ")
    }

    assert used <= known


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    (source,) = yaml.safe_load((MONITORING / "grafana" / "datasource.yml").read_text())[
        "datasources"
    ]
    asked = [panel["datasource"]["uid"] for panel in DASHBOARD["panels"]]
    asked += [target["datasource"]["uid"] for p in DASHBOARD["panels"] for target in p["targets"]]

    assert set(asked) == {source["uid"]}


def test_no_panel_lies_on_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
