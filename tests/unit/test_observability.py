"""The rules and the dashboard in examples/observability are sound by themselves.

That they name what a client tells is tested with a real scrape, in tests/servers/test_metrics.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "examples" / "observability"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts-test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(words: tuple[str, ...]) -> None:
    ended = subprocess.run(
        ["promtool", *words], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_each_alert_is_shown_to_come_and_to_stay_away() -> None:
    alerts = re.findall(r"- alert: (\w+)", (HERE / "alerts.yml").read_text(encoding="utf-8"))
    text = (HERE / "alerts-test.yml").read_text(encoding="utf-8")
    told = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", text)
    assert alerts
    assert sorted(alerts) == sorted({name for name, quiet in told if not quiet})
    assert sorted(alerts) == sorted({name for name, quiet in told if quiet})


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((HERE / "grafana-dashboard.json").read_text(encoding="utf-8"))


def test_the_dashboard_fits_together(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"] for panel in shown)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_dashboard_is_bound_to_no_installation(dashboard: Any) -> None:
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    assert used - {"__rate_interval", "__range", "__all"} == variables
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(dashboard))
    assert set(sources) == {"${datasource}", "txharedis"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_every_query_of_the_dashboard_can_be_read(dashboard: Any, tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expression}
        for number, expression in enumerate(expressions(dashboard))
    ]
    assert len(rules) > 25
    # JSON is YAML.
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def expressions(dashboard: Any) -> list[str]:
    """All queries, as Grafana would send them."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    return [
        query.replace("$__rate_interval", "1m")
        .replace("$__range", "15m")
        .replace("$job", ".*")
        .replace("$instance", ".*")
        for query in found
    ]
