"""What is read of a pod, who a container belongs to, and what annotations ask for."""

import pytest

from collectors.kubernetes.pods import KEEP_S, MAX_PODS, PodFacts, Pods, read, tag
from collectors.kubernetes.settings import KubernetesSettings
from collectors.scrapers.annotations import PodTargets, annotated
from collectors.scrapers.settings import DiscoverySettings
from collectors.workload import Pod
from runtime.settings import Secret
from streams.schema.errors import SettingsError

ID, SIDE, INIT = "a1" * 32, "b2" * 32, "c3" * 32
NAME, VERSION = "app.kubernetes.io/name", "app.kubernetes.io/version"
PLAIN = DiscoverySettings()


def pod(name="shop-1", uid="uid-1", *, labels=None, annotations=None, containers=None, statuses=(), **status):
    """A pod as the API gives it."""
    listed = containers or [{"name": "web", "image": "registry.local:5000/shop:v1.2@sha256:" + "0" * 64,
                             "ports": [{"containerPort": 6060, "name": "pprof"}]}]  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid, "labels": labels, "annotations": annotations},
        "spec": {"containers": listed, "initContainers": [{"name": "init", "image": "setup"}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.7",
            "containerStatuses": [{"name": name, "containerID": f"containerd://{each}"} for name, each in statuses],
            **status,
        },
    }  # fmt: skip


def grafana(**annotations):
    return {f"profiles.grafana.com/{name.replace('__', '.')}": value for name, value in annotations.items()}


def targets(*pods, settings=PLAIN):
    found, refused = annotated([read(each) for each in pods], settings)
    return found, [why for _, why in refused]


def test_who_a_container_belongs_to():
    two = [{"name": "web", "image": "shop:v1.2"}, {"name": "proxy", "image": "proxy"}]
    facts = read(
        pod(
            labels={NAME: "shop"}, annotations={"kubernetes.io/config.hash": "f" * 32, "other": "x"}, containers=two,
            statuses=[("web", ID), ("proxy", SIDE)],
            initContainerStatuses=[{"name": "init", "containerID": "", "lastState": {
                "terminated": {"containerID": f"cri-o://{INIT}"}}}],
        )
    )  # fmt: skip
    assert dict(facts.identities()) == {
        "uid-1": Pod("ns", "shop-1", "", "shop"),
        "f" * 32: Pod("ns", "shop-1", "", "shop"),
        ID: Pod("ns", "shop-1", "web", "shop", "v1.2"),
        SIDE: Pod("ns", "shop-1", "proxy", "shop"),
        INIT: Pod("ns", "shop-1", "init", "shop"),
    }
    assert facts.annotations == {}
    assert dict(read(pod()).identities())["uid-1"].version == "v1.2"
    labelled = read(pod(labels={VERSION: "v9"}, statuses=[("web", ID)]))
    assert dict(labelled.identities())[ID] == Pod("ns", "shop-1", "web", "", "v9")


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("shop", ""),
        ("shop:latest", ""),
        ("shop:1.2.3-rc_1", "1.2.3-rc_1"),
        ("host:5000/shop", ""),
        ("host:5000/team/shop:v1", "v1"),
        ("shop@sha256:" + "0" * 64, ""),
        ("shop:v1@sha256:" + "0" * 64, "v1"),
        ("", ""),
    ],
)
def test_the_tag_of_an_image(image, wanted):
    assert tag(image) == wanted


@pytest.mark.parametrize("thing", [{}, {"metadata": {}}, {"metadata": {"uid": {}, "name": "n"}}, {"metadata": None}])
def test_what_is_no_pod(thing):
    with pytest.raises(ValueError, match="lacks"):
        read(thing)


def test_the_index_follows_and_remembers_what_is_gone_for_a_while():
    now = [0.0]
    pods = Pods(lambda: now[0])
    one, two = read(pod(statuses=[("web", ID)])), read(pod("shop-2", "uid-2", statuses=[("web", SIDE)]))
    assert pods.replace([one]) == 0
    assert pods.put(two)
    assert (pods.get(ID).pod, pods.get("uid-2").pod, len(pods)) == ("shop-1", "shop-2", 2)
    before = pods.generation
    assert pods.put(two)
    assert pods.generation == before
    pods.remove(one)
    pods.remove(one)
    # A container that was restarted under another id.
    assert pods.put(read(pod("shop-2", "uid-2", statuses=[("web", INIT)])))
    assert (pods.get(ID).pod, pods.get(SIDE).pod, pods.get(INIT).pod, len(pods)) == ("shop-1", "shop-2", "shop-2", 1)
    now[0] = KEEP_S + 1
    pods.replace([])
    assert pods.get(ID) is pods.get(SIDE) is None
    assert pods.get(INIT).pod == "shop-2"


def test_pods_are_bounded():
    pods = Pods()
    many = [PodFacts((f"uid-{number}",), "ns", f"p{number}") for number in range(MAX_PODS + 3)]
    assert pods.replace(many) == 3
    assert not pods.put(many[-1])
    assert pods.put(many[0])
    assert len(pods) == MAX_PODS


def test_annotations_of_every_type():
    annotations = grafana(
        cpu__scrape="true", cpu__port="6060", memory__scrape="true", memory__port_name="pprof",
        memory__path="/custom/heap", goroutine__scrape="true", goroutine__port="7070", mutex__scrape="false",
        block__scrape="true", block__scheme="https",
    )  # fmt: skip
    settings = DiscoverySettings(authorization=Secret("Bearer x"), ca_file="/ca", seconds=5)
    found, refused = targets(pod(labels={NAME: "shop"}, annotations=annotations), settings=settings)
    assert refused == []
    assert {profile: target.url(profile) for target in found for profile in target.intervals()} == {
        "profile": "http://10.0.0.7:6060/debug/pprof/profile?seconds=5",
        "heap": "http://10.0.0.7:6060/custom/heap",
        "allocs": "http://10.0.0.7:6060/custom/heap",
        "goroutine": "http://10.0.0.7:7070/debug/pprof/goroutine",
        "block": "https://10.0.0.7:6060/debug/pprof/block",
    }
    assert {(t.service, t.version, t.namespace, t.pod, t.container) for t in found} == {
        ("shop", "v1.2", "ns", "shop-1", "web")
    }
    # Whoever may annotate a pod must not be sent the secret.
    assert {(t.ca_file, bool(t.authorization)) for t in found} == {("/ca", False)}


def test_which_port_and_container():
    two = [
        {"name": "web", "image": "a:v1", "ports": [{"containerPort": 80, "name": "http"}]},
        {"name": "side", "image": "b:v2", "ports": [{"containerPort": 81, "name": "pprof"},
                                                    {"containerPort": 82, "protocol": "UDP"}]},
    ]  # fmt: skip
    cases = {
        (): "say which port, 2 are declared",
        (("port", "81"),): (81, "side", "v2"),
        (("port", "90"),): (90, "", ""),
        (("port_name", "pprof"),): (81, "side", "v2"),
        (("port", "90"), ("port_name", "http")): (90, "web", "v1"),
        (("port_name", "none"),): "no container has a port named 'none'",
        (("port", "0"),): "not 1 to 65535",
        (("port", "1e3"),): "not 1 to 65535",
        (("port", "99999999999"),): "not 1 to 65535",
        (("scheme", "ftp"), ("port", "81")): "neither http nor https",
        (("path", "custom"), ("port", "81")): "paths must begin with /",
        (("path", "/a b"), ("port", "81")): "paths must begin with /",
    }
    for given, wanted in cases.items():
        annotations = grafana(cpu__scrape="true", **{f"cpu__{name}": value for name, value in given})
        found, refused = targets(pod(annotations=annotations, containers=two))
        if isinstance(wanted, str):
            assert found == [], given
            assert wanted in refused[0]
        else:
            (target,) = found
            assert (int(target.host.split(":")[1]), target.container, target.version) == wanted
            assert target.service == (target.container or "shop-1")


def test_a_type_that_go_does_not_have_is_said():
    annotations = grafana(godeltaprof_memory__scrape="true", cpu__scrape="true")
    found, refused = targets(pod(annotations=annotations))
    assert len(found) == 1
    assert "there is no type 'godeltaprof_memory' here, only cpu, memory" in refused[0]


@pytest.mark.parametrize("status", [{"phase": "Pending"}, {"phase": "Succeeded"}, {"podIP": ""}, {"podIP": None}])
def test_a_pod_that_does_not_run_is_not_scraped(status):
    assert targets(pod(annotations=grafana(cpu__scrape="true"), **status)) == ([], [])


def test_addresses_that_are_none_or_of_version_six():
    annotations = grafana(cpu__scrape="true")
    found, refused = targets(
        pod(annotations=annotations, podIP="fd00::7"), pod(annotations=annotations, podIP="evil.example/x?")
    )
    assert [target.address for target in found] == ["http://[fd00::7]:6060"]
    assert "the pod's address is none" in refused[0]


def test_a_source_looks_again_when_pods_change_and_complains_once(caplog):
    pods = Pods()
    source = PodTargets(pods, PLAIN)
    assert source.targets() == []
    pods.replace([read(pod(annotations=grafana(cpu__scrape="true", fgprof__scrape="true")))])
    found = source.targets()
    assert [target.pod for target in found] == ["shop-1"]
    assert source.targets() is found
    pods.put(read(pod("other", "uid-2")))
    source.targets()
    assert [record.pod for record in caplog.records] == ["ns/shop-1"]
    pods.replace([])
    assert source.targets() == []


def test_where_the_api_server_is():
    inside = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert KubernetesSettings().address(inside) == ""
    assert KubernetesSettings("in-cluster").address(inside) == "https://10.96.0.1:6443"
    assert KubernetesSettings("in-cluster").address({"KUBERNETES_SERVICE_HOST": "fd00::1"}) == "https://[fd00::1]:443"
    assert KubernetesSettings("https://a:1/k8s/").address({}) == "https://a:1/k8s"
    with pytest.raises(SettingsError, match="no pod of a cluster"):
        KubernetesSettings("in-cluster").address({})
    for wrong in ("http://a:1", "a:1", "https://u:p@a", "https://a b", "https://a?x", "https://a:99999"):
        with pytest.raises(SettingsError, match="must be https://host:port"):
            KubernetesSettings(wrong).address({})
