"""The files that run the service elsewhere: Kubernetes by Kustomize, Prometheus and Grafana."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from indrnn.service.app import create_app
from indrnn.service.settings import Settings

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
MONITORING = ROOT / "deploy" / "monitoring"
PROXY = ROOT / "deploy" / "proxy"
OURS = ("overlays/cpu", "overlays/gpu", "redis")
EXTENSIONS = ("gateway", "kserve")  # of kinds that a cluster has only with Gateway API or KServe


def rendered(folder: str) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl (Debian: kubernetes-client)")
    done = subprocess.run([kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OURS)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(request.param)


def test_kubernetes_knows_every_field(objects: list[dict[str, Any]]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    for one in objects:
        validate.validate(one, "1.29", strict=True)


def test_what_selects_pods_selects_these(objects: list[dict[str, Any]]) -> None:
    """An empty selector would be every pod of the namespace: a disruption budget and a network policy for other people's."""
    (pods,) = [one["spec"]["template"] for one in objects if one["kind"] in ("Deployment", "StatefulSet")]
    labels = pods["metadata"]["labels"]
    seen = 0
    for one in objects:
        spec = one.get("spec", {})
        found = spec.get("podSelector") if one["kind"] == "NetworkPolicy" else spec.get("selector")
        if found is not None:
            wanted = found if one["kind"] == "Service" else found["matchLabels"]
            assert wanted, one["kind"]
            assert wanted.items() <= labels.items(), one["kind"]
            seen += 1
    assert seen >= 2


def test_no_container_may_do_more_than_it_needs(objects: list[dict[str, Any]]) -> None:
    for one in objects:
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            guard = container["securityContext"]
            assert (guard["readOnlyRootFilesystem"], guard["allowPrivilegeEscalation"]) == (True, False)
            assert guard["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_a_pod_is_probed_where_the_service_answers_and_has_the_time_to_end(overlay: str) -> None:
    objects = rendered(f"overlays/{overlay}")
    (pod,) = [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"]
    (container,) = pod["containers"]
    (config,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    known = {f"INDRNN_{name.upper()}" for name in Settings.model_fields}
    assert config.keys() | {one["name"] for one in container["env"]} <= known
    paths = {route.path for r in create_app(Settings()).routes for route in getattr(getattr(r, "original_router", None), "routes", [r])}
    assert {container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")} <= paths
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "grpc": int(config["INDRNN_GRPC_PORT"])}
    slept = int(re.search(r"sleep\((\d+)\)", " ".join(container["lifecycle"]["preStop"]["exec"]["command"]))[1])  # type: ignore[index]
    assert slept + int(config["INDRNN_DRAIN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    assert container["image"] == f"indrnn:{overlay}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")


def test_the_autoscaler_counts_what_the_service_measures() -> None:
    (scaler,) = [one["spec"] for one in rendered("overlays/cpu") if one["kind"] == "HorizontalPodAutoscaler"]
    ours = [m["pods"]["metric"]["name"] for m in scaler["metrics"] if m["type"] == "Pods"]
    assert ours == ["indrnn_waiting"]


@pytest.mark.parametrize("folder", EXTENSIONS)
def test_extensions_name_the_same_service(folder: str) -> None:
    (one,) = rendered(folder)
    if folder == "gateway":
        (rule,) = one["spec"]["rules"]
        assert rule["backendRefs"] == [{"name": "indrnn", "port": 8000}]
        assert rule["sessionPersistence"] == {"type": "Header", "sessionName": "x-session-id"}
    else:
        (container,) = one["spec"]["predictor"]["containers"]
        assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": 8000}
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in one["spec"]["predictor"]["volumes"]}


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    board = json.loads((MONITORING / "grafana" / "dashboards" / "indrnn.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_dashboard_and_alerts_ask_for_metrics_that_docs_name() -> None:
    documented = (ROOT / "docs" / "operations.md").read_text()
    for title, expression in expressions():
        for name in re.findall(r"indrnn_(\w+)", expression):
            bare = re.sub(r"_(bucket|sum|count)$", "", name)
            assert f"`{bare}`" in documented or f"`{bare}" in documented, (title, name)


def test_every_alert_says_what_to_do() -> None:
    headings = re.findall(r"^#+ (IndRNN\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == headings
    for rule in group["rules"]:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian: prometheus)")
    done = subprocess.run([promtool, "check", "rules", str(MONITORING / "alerts.yml")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_watches_mounts_files_that_are_there() -> None:
    watching = yaml.safe_load((MONITORING / "docker-compose.yml").read_text())["services"]
    assert set(watching) == {"prometheus", "grafana"}
    for one in watching.values():
        mounted = [volume.split(":")[0] for volume in one["volumes"] if volume.startswith("./")]
        assert mounted
        assert all((ROOT / path).exists() for path in mounted)


def test_the_proxy_s_files_are_what_nginx_takes_and_what_compose_mounts(tmp_path: Path) -> None:
    """The service's port is a range there, from which each replica takes one."""
    compose = yaml.safe_load((PROXY / "docker-compose.yml").read_text())["services"]["proxy"]
    mounted = dict(volume.rsplit(":ro", 1)[0].rsplit(":", 1)[::-1] for volume in compose["volumes"])
    for inside, file in mounted.items():
        assert file.startswith("$") or (ROOT / file).is_file(), inside
    assert set(compose["depends_on"]) <= set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("needs nginx and openssl")
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=x"]
    subprocess.run(key, cwd=tmp_path, check=True, capture_output=True)
    shutil.copy(PROXY / "proxied.conf", tmp_path)
    for name in ("nginx.conf", "compose.conf"):
        conf = (PROXY / name).read_text().replace("/etc/nginx/tls/", "").replace("/etc/nginx/", "").replace("/tmp/", f"{tmp_path}/")
        (tmp_path / name).write_text(conf)
        done = subprocess.run([nginx, "-p", str(tmp_path), "-c", name, "-t"], capture_output=True, text=True, timeout=60)
        assert "test is successful" in done.stderr, done.stderr
