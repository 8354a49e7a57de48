"""Settings of the pod watch. Imports nothing that starts threads: see ``collectors.privileges``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from streams.schema.errors import SettingsError

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """``[agent.kubernetes]``: where the API server is, and as whom it is asked. The node is the agent's ``node``."""

    server: str = ""
    """``https://host:port``, or ``in-cluster``: what a pod's environment names. Empty: no API server is asked."""
    token_file: str = f"{_ACCOUNT}/token"
    """A bearer token; read anew for each connection, for tokens are renewed."""
    ca_file: str = f"{_ACCOUNT}/ca.crt"
    """Certificates to trust; empty trusts the system's."""
    cert_file: str = ""
    """A client certificate instead of the token."""
    key_file: str = ""

    def address(self, environ: Mapping[str, str] = os.environ) -> str:
        """Return ``https://host:port``, or "" when there is no API server to ask.

        Raises:
            SettingsError: ``server`` is not an address, or this process is in no cluster.
        """
        if not self.server:
            return ""
        if self.server == "in-cluster":
            host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
            if not host:
                raise SettingsError("setting agent.kubernetes.server is in-cluster, and this is no pod of a cluster")
            return f"https://{f'[{host}]' if ':' in host else host}:{port}"
        try:
            parts = urlsplit(self.server)
            well = parts.scheme == "https" and parts.hostname and parts.port != 0 and parts.username is None
        except ValueError:
            well = False
        # A token is not sent in the clear.
        if not well or parts.query or parts.fragment or any(not "!" <= c <= "~" for c in self.server):
            raise SettingsError("setting agent.kubernetes.server must be https://host:port or in-cluster")
        return self.server.rstrip("/")
