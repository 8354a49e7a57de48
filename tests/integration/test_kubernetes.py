"""The pod watch, names of workloads and scraping by annotation, against a real Kubernetes API server."""

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest
import yaml
from prometheus_client import CollectorRegistry

from collectors.cgroup_ids import mounted
from collectors.kubernetes import watch as watching
from collectors.kubernetes.settings import KubernetesSettings
from collectors.kubernetes.watch import PodWatch
from collectors.scrapers.annotations import PodTargets
from collectors.scrapers.scraper import Scrapers
from collectors.scrapers.settings import DiscoverySettings
from collectors.workload import Pod
from deploy.broker import free_port
from tests.integration.kube import ADMIN, BUILD_S, ROOT, Kube, apiserver
from tests.kernel.cgroups import cgroup, hierarchy, process_in

# The first test builds the API server, which takes minutes on a machine that never did.
pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(BUILD_S + 120),
    # A TLS handshake that is cut off leaves its transport to the collector of garbage (CPython's asyncio).
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected():
    """What a test leaves to the collector goes before another module's test begins."""
    yield
    gc.collect()


NAME, VERSION = "app.kubernetes.io/name", "app.kubernetes.io/version"
IDS = [f"{number:02x}" * 32 for number in range(10, 30)]


@pytest.fixture(scope="module")
def kube(tmp_path_factory):
    instance = Kube(apiserver(), tmp_path_factory.mktemp("kube"))
    try:
        instance.start()
        yield instance
    finally:
        instance.stop()


@pytest.fixture
def namespace(kube, unique):
    kube.namespace(unique)
    return unique


class Watch:
    """A running pod watch, its token in a file as in a pod."""

    def __init__(self, kube, directory, node, token=ADMIN):
        self.token_file, self.registry = directory / "token", CollectorRegistry()
        self.token_file.write_text(token + "\n")
        settings = KubernetesSettings(kube.address, str(self.token_file), str(kube.ca))
        self.watch = PodWatch(settings, node, self.registry)
        self.pods = self.watch.pods

    def __enter__(self):
        self.watch.start()
        return self

    def __exit__(self, *_):
        began = time.monotonic()
        self.watch.close()
        assert time.monotonic() - began < 2
        assert not self.watch._thread.is_alive()

    def names(self):
        return sorted(pod.name for pod in self.pods.all())

    def metric(self, name, **labels):
        return self.registry.get_sample_value(f"perfstream_kubernetes_{name}", labels) or 0


def until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_one_list_and_one_watch_follow_the_pods_of_this_node_only(kube, namespace, unique, tmp_path):
    here, elsewhere = f"{unique}-here", f"{unique}-elsewhere"
    for number in range(3):
        kube.pod(namespace, f"old-{number}", here, labels={NAME: "shop", VERSION: "v1"})
        kube.pod(namespace, f"other-{number}", elsewhere)
    kube.status(namespace, "old-0", containers=[("web", IDS[0])])
    with Watch(kube, tmp_path, here) as watch:
        assert watch.watch.wait(20)
        assert watch.names() == ["old-0", "old-1", "old-2"]
        assert watch.pods.get(IDS[0]) == Pod(namespace, "old-0", "web", "shop", "v1")
        uid = kube.pod(namespace, "new", here, containers=[{"name": "app", "image": "host:5000/team/app:v2.1"}])[
            "metadata"
        ]["uid"]
        until(lambda: watch.pods.get(uid) == Pod(namespace, "new", "", "", "v2.1"))
        kube.status(namespace, "new", containers=[("app", IDS[1])])
        until(lambda: watch.pods.get(IDS[1]) == Pod(namespace, "new", "app", "", "v2.1"))
        kube.patch(namespace, "new", labels={NAME: "app", VERSION: "v3"})
        until(lambda: watch.pods.get(IDS[1]) == Pod(namespace, "new", "app", "app", "v3"))
        kube.delete(namespace, "new")
        until(lambda: "new" not in watch.names())
        # What it had done may still have to be read.
        assert watch.pods.get(IDS[1]) == Pod(namespace, "new", "app", "app", "v3")
        assert watch.watch.trouble == ""
        assert (watch.metric("lists_total"), watch.metric("watches_total"), watch.metric("pods")) == (1, 1, 3)
        assert (watch.metric("events_total", type="added"), watch.metric("events_total", type="deleted")) == (1, 1)


def test_a_watch_that_the_server_ends_goes_on_without_another_list(kube, namespace, unique, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_WATCH_S", 2)
    with Watch(kube, tmp_path, unique) as watch:
        assert watch.watch.wait(20)
        for number in range(3):
            watches = watch.metric("watches_total")
            kube.pod(namespace, f"p{number}", unique)
            until(lambda: watch.metric("watches_total") > watches)  # noqa: B023
        until(lambda: len(watch.names()) == 3)
        assert watch.metric("lists_total") == 1
        assert watch.metric("events_total", type="added") == 3
        assert watch.metric("failures_total", reason="gone") == 0


def test_the_pods_stay_while_the_server_is_away_and_follow_when_it_is_back(kube, namespace, unique, tmp_path, caplog):
    kube.pod(namespace, "before", unique, labels={NAME: "shop"})
    kube.status(namespace, "before", containers=[("web", IDS[2])])
    with Watch(kube, tmp_path, unique) as watch:
        assert watch.watch.wait(20)
        kube.kill_server()
        until(lambda: "no connection" in watch.watch.trouble)
        assert watch.pods.get(IDS[2]).service == "shop"
        kube.start_server()
        kube.delete(namespace, "before")
        kube.pod(namespace, "after", unique)
        until(lambda: watch.names() == ["after"], 60)
        until(lambda: watch.watch.trouble == "")
        assert watch.metric("failures_total", reason="connect") >= 1
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in said if "no connection" in text]) == 1
    assert ADMIN not in caplog.text


def test_a_server_that_stands_still_is_noticed(kube, namespace, unique, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_WATCH_S", 2)
    monkeypatch.setattr(watching, "_GRACE_S", 0.5)
    monkeypatch.setattr(watching, "_ANSWER_S", 1.0)
    kube.pod(namespace, "before", unique)
    with Watch(kube, tmp_path, unique) as watch:
        assert watch.watch.wait(20)
        with kube.standing_still():
            until(lambda: "no whole answer within 1 s" in watch.watch.trouble)
            assert watch.names() == ["before"]
        kube.pod(namespace, "after", unique)
        until(lambda: watch.names() == ["after", "before"])
        until(lambda: watch.watch.trouble == "")


def test_a_version_that_the_server_no_longer_knows_makes_it_list_again(kube, namespace, unique, tmp_path):
    kube.pod(namespace, "one", unique)
    # It knows the versions since it began.
    kube.kill_server()
    kube.start_server()
    watch = Watch(kube, tmp_path, unique)
    watch.watch._version = "2"
    with watch:
        until(lambda: watch.names() == ["one"])
        assert watch.metric("failures_total", reason="gone") == 1
        kube.pod(namespace, "two", unique)
        until(lambda: watch.names() == ["one", "two"])
        assert watch.metric("lists_total") == 1
        assert watch.watch.trouble == ""


def test_the_documented_rights_are_enough_and_no_more(kube, unique, tmp_path, caplog):
    text = (ROOT / "deploy/kubernetes/agent-rbac.yaml").read_text()
    account, *rights = yaml.safe_load_all(text)
    kube.namespace("perfstream")
    paths = {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"}
    kube.ask("POST", "/api/v1/namespaces/perfstream/serviceaccounts", account)
    token = kube.ask(
        "POST", "/api/v1/namespaces/perfstream/serviceaccounts/perfstream-agent/token",
        {"spec": {"expirationSeconds": 600}},
    )["status"]["token"]  # fmt: skip
    kube.pod("perfstream", "agent", unique)
    with Watch(kube, tmp_path, unique, token="not-a-token") as watch:
        until(lambda: "status 401" in watch.watch.trouble)
        # A token that is renewed is read without a restart.
        watch.token_file.write_text(token)
        until(lambda: "status 403" in watch.watch.trouble)
        assert "the service account needs list and watch on pods" in watch.watch.trouble
        for thing in rights:
            kube.ask("POST", f"/apis/rbac.authorization.k8s.io/v1/{paths[thing['kind']]}", thing)
        until(lambda: watch.names() == ["agent"], 60)
        kube.pod("perfstream", "second", unique)
        until(lambda: watch.names() == ["agent", "second"])
    for method, path in (
        ("GET", "/api/v1/secrets"), ("GET", "/api/v1/namespaces/perfstream/pods/agent"),
        ("DELETE", "/api/v1/namespaces/perfstream/pods/agent"), ("GET", "/api/v1/nodes"),
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError, match="403"):
            kube.ask(method, path, token=token)
    assert token not in caplog.text


def test_a_server_that_is_not_trusted_gets_no_token(kube, unique, tmp_path):
    watch = Watch(kube, tmp_path, unique)
    watch.watch = PodWatch(
        KubernetesSettings(kube.address, str(watch.token_file), ""), unique, CollectorRegistry()
    )  # fmt: skip
    with watch:
        until(lambda: "its certificate is not accepted" in watch.watch.trouble)


def grafana(address, **kinds):
    """Return annotations for a program that listens at ``host:port``."""
    port = address.rpartition(":")[2]
    return {
        f"profiles.grafana.com/{kind}.{what}": value
        for kind, wanted in kinds.items()
        for what, value in (("scrape", wanted), ("port", port))
    }


def test_annotated_pods_are_scraped_as_long_as_they_run(kube, namespace, unique, tmp_path, go):
    published = []
    settings = DiscoverySettings(seconds=1)
    containers = [{"name": "web", "image": "shop:v1.4"}]
    kube.pod(namespace, "silent", unique, annotations=grafana(go, goroutine="false"))
    kube.pod(namespace, "shop-1", unique, labels={NAME: "shop"}, containers=containers,
             annotations=grafana(go, memory="true", goroutine="true"))  # fmt: skip
    with Watch(kube, tmp_path, unique) as watch:
        registry = CollectorRegistry()
        scrapers = Scrapers((), lambda *call: published.append(call), registry,
                            sources=[Quick(watch.pods, settings)])  # fmt: skip

        def metric(name, **labels):
            return registry.get_sample_value(f"perfstream_scraper_{name}", labels)

        def rows():
            return Counter(
                tuple(row[name] for name in ("namespace", "pod", "container", "service", "version", "type"))
                for call in list(published)
                for row in call[2].to_pylist()
            )

        scrapers.start()
        try:
            until(lambda: watch.names() == ["shop-1", "silent"])
            assert metric("targets", source="kubernetes") in (None, 0)
            for pod in ("shop-1", "silent"):
                kube.status(namespace, pod)
            who = (namespace, "shop-1", "web", "shop", "v1.4")
            until(lambda: {(*who, "alloc_space"), (*who, "inuse_space"), (*who, "goroutine")} <= set(rows()))
            assert {row[:5] for row in rows()} == {who}
            assert metric("targets", source="kubernetes") == 1
            # A label that changes is that of the next rows, and the growth goes on.
            kube.patch(namespace, "shop-1", labels={VERSION: "v2"})
            until(lambda: (namespace, "shop-1", "web", "shop", "v2", "alloc_space") in rows())
            calls = [call for call in list(published) if "alloc_space" in call[2].column("type").to_pylist()]
            assert [call[4] for call in calls[:-1]] == [call[3] for call in calls[1:]]
            kube.delete(namespace, "shop-1")
            until(lambda: metric("targets", source="kubernetes") == 0)
            place = {"target": f"http://{go}", "profile": "goroutine"}
            until(lambda: metric("up", **place) is None and metric("scrapes_total", **place) is None)
            kube.pod(namespace, "shop-2", unique, containers=containers, annotations=grafana(go, goroutine="true"))
            kube.status(namespace, "shop-2")
            # Without the label the container names the service.
            until(lambda: (namespace, "shop-2", "web", "web", "v1.4", "goroutine") in rows())
        finally:
            scrapers.close()


class Quick(PodTargets):
    """The same targets, each profile once a second."""

    def targets(self):
        from dataclasses import replace

        return [replace(each, profiles=dict.fromkeys(each.profiles, 1)) for each in super().targets()]


@pytest.fixture(scope="module")
def go(gopprof):
    with subprocess.Popen([str(gopprof)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.kill()


def test_a_gadget_shows_a_pods_processes_by_name(kube, namespace, unique, tmp_path):
    number = os.urandom(32).hex()
    uid = kube.pod(namespace, "shop", unique, labels={NAME: "checkout"})["metadata"]["uid"]
    kube.status(namespace, "shop", containers=[("web", number)])
    (tmp_path / "token").write_text(ADMIN)
    with contextlib.ExitStack() as stack:
        root = mounted() or stack.enter_context(hierarchy(tmp_path / "v2", "cgroup2"))
        directory = stack.enter_context(cgroup(root, f"kubepods/besteffort/pod{uid}/{number}"))
        process = stack.enter_context(process_in(directory))
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "gadget", "snapshot", "process", "-n", namespace, "-o", "json"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=environment(kube, unique, tmp_path),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (row,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert {name: row[name] for name in ("pid", "namespace", "pod", "container", "service", "version")} == {
            "pid": process.pid, "namespace": namespace, "pod": "shop", "container": "web", "service": "checkout",
            "version": "v1",
        }  # fmt: skip


def environment(kube, node, directory):
    """Return the variables of an agent on a node of this API server; the token stands in the directory."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PERFSTREAM_")} | {
        "PERFSTREAM_NODE": node,
        "PERFSTREAM_AGENT_KUBERNETES_SERVER": kube.address,
        "PERFSTREAM_AGENT_KUBERNETES_TOKEN_FILE": str(directory / "token"),
        "PERFSTREAM_AGENT_KUBERNETES_CA_FILE": str(kube.ca),
    }


def test_the_agent_itself_watches_and_scrapes(kube, namespace, unique, tmp_path, go):
    kube.pod(namespace, "shop", unique, annotations=grafana(go, memory="true"))
    kube.status(namespace, "shop")
    (tmp_path / "token").write_text(ADMIN)
    port = free_port()
    environ = environment(kube, unique, tmp_path) | {
        "PERFSTREAM_AGENT_COLLECTORS": "none",
        "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "agent", "--spool", str(tmp_path / "spool"), "--http-port", str(port)],
        cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True,
    ) as agent:  # fmt: skip
        try:

            def get(path):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                        return answer.read().decode()
                except urllib.error.HTTPError as error:
                    return error.read().decode()
                except OSError:
                    return ""

            until(lambda: 'perfstream_scraper_targets{source="kubernetes"} 1.0' in get("/metrics"), 30)
            until(lambda: f'perfstream_scraper_up{{profile="heap",target="http://{go}"}} ' in get("/metrics"), 30)
            assert json.loads(get("/healthz"))["checks"]["kubernetes"] == ""
            assert "perfstream_kubernetes_pods 1.0" in get("/metrics")
        finally:
            agent.terminate()
            _, errors = agent.communicate(timeout=20)
    assert agent.returncode == 0, errors
    assert ADMIN not in errors
