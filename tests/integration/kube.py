"""A real Kubernetes API server over a real etcd, on loopback, without nodes: pods are what the tests say they are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from deploy.broker import free_port

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "programs" / "kube_apiserver"
ADMIN = "token-of-the-tests"
BUILD_S = 1200
"""Nearly 1,900 packages: about six minutes on two cores the first time, then a few seconds."""


def apiserver():
    """Build the API server where it stays, so that a second run links nothing; returns the executable."""
    cache = Path(os.environ.get("PERFSTREAM_CACHE") or ROOT / ".cache").resolve() / "kube-apiserver"
    cache.mkdir(parents=True, exist_ok=True)
    binary = cache / "kube-apiserver"
    subprocess.run(
        ["nice", "-n", "15", "go", "build", "-ldflags=-s -w", "-o", str(binary), "."],
        cwd=SOURCE, check=True, timeout=BUILD_S,
    )  # fmt: skip
    return binary


class Kube:
    """One API server and its etcd, in ``directory``."""

    def __init__(self, binary, directory):
        assert shutil.which("etcd"), "etcd is missing: deploy/bootstrap.sh test"
        self._binary, self.directory = binary, directory
        self.port, self.etcd_port = free_port(), free_port()
        self._etcd, self._server = None, None
        self.ca = directory / "certificates" / "apiserver.crt"
        self._context = None

    @property
    def address(self):
        return f"https://127.0.0.1:{self.port}"

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        subprocess.run(
            ["openssl", "genrsa", "-out", "account.key", "2048"], cwd=self.directory, check=True, capture_output=True
        )
        url, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._etcd = self._run(
            "etcd", "--name=one", f"--data-dir={self.directory / 'etcd'}", f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}", f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=one={peers}", "--snapshot-count=100000",
        )  # fmt: skip
        self.start_server()
        return self

    def start_server(self):
        """Start the API server alone, at the same address; returns when it is ready."""
        key = self.directory / "account.key"
        self._server = self._run(
            str(self._binary), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--cert-dir={self.ca.parent}", f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", "--endpoint-reconciler-type=none",
            "--feature-gates=WatchList=false", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError):
                self._context = ssl.create_default_context(cafile=str(self.ca))
                if self.ask("GET", "/readyz", raw=True) == b"ok":
                    return
            assert self._server.poll() is None, self.log()
            assert time.monotonic() < deadline, f"not ready in time: {self.log()}"
            time.sleep(0.1)

    def kill_server(self):
        self._server.kill()
        self._server.wait()

    @contextlib.contextmanager
    def standing_still(self):
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def stop(self):
        for process in (self._server, self._etcd):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def log(self):
        return "".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.directory.glob("*.log")))

    def ask(self, method, path, body=None, *, token=ADMIN, kind="application/json", raw=False):
        """Return the answer's JSON."""
        request = urllib.request.Request(
            self.address + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=20, context=self._context) as answer:
            data = answer.read()
        return data if raw else json.loads(data)

    def namespace(self, name):
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def pod(self, namespace, name, node, *, labels=None, annotations=None, containers=None):
        """Create a pod that is bound to a node; nothing runs."""
        spec = {"nodeName": node, "containers": containers or [{"name": "web", "image": "shop:v1"}]}
        meta = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
        return self.ask("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": meta, "spec": spec})

    def status(self, namespace, name, *, ip="127.0.0.1", phase="Running", containers=()):
        """Say what a node's kubelet would; ``containers``: (name, 64 digits)."""
        statuses = [
            {"name": each, "containerID": f"containerd://{number}", "image": "x", "imageID": "x", "ready": True,
             "restartCount": 0} for each, number in containers
        ]  # fmt: skip
        status = {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "containerStatuses": statuses}
        self.ask("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status},
                 kind="application/merge-patch+json")  # fmt: skip

    def patch(self, namespace, name, **meta):
        self.ask("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}", {"metadata": meta},
                 kind="application/merge-patch+json")  # fmt: skip

    def delete(self, namespace, name):
        self.ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0")

    def _run(self, *command):
        log = self.directory / f"{Path(command[0]).name}.log"
        with log.open("ab") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.directory, start_new_session=True
            )
