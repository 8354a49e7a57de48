"""Publishes the dashboards to a Grafana over its HTTP API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dashboards import boards
from dashboards.boards import parts
from runtime.settings import Secret
from streams.schema.errors import PerfstreamError, SettingsError, UnavailableError

FOLDER_UID = "perfstream"
TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class GrafanaSettings:
    """``[grafana]``: where dashboards are published, and as whom (a token, or a user with a password)."""

    url: str = ""
    token: Secret = Secret("")
    user: str = ""
    password: Secret = Secret("")


@dataclass(frozen=True, slots=True)
class PushSettings:
    """What ``perfstream dashboards push`` reads: ``PERFSTREAM_GRAFANA_URL``, ``_TOKEN``, ``_USER``, ``_PASSWORD``."""

    grafana: GrafanaSettings = field(default_factory=GrafanaSettings)


def push(settings: GrafanaSettings, folder: str = "perfstream") -> list[str]:
    """Create the folder and replace every dashboard in it; returns their addresses.

    Raises:
        SettingsError: the URL or the credentials are missing or not accepted.
        UnavailableError: Grafana does not answer.
        PerfstreamError: Grafana refused a dashboard.
    """
    import niquests
    from grafana_client import GrafanaApi
    from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError

    if urlsplit(settings.url).scheme not in ("http", "https") or not urlsplit(settings.url).hostname:
        raise SettingsError(f"'{settings.url}' is not Grafana's address; give --url http://HOST:3000")
    if not settings.token and not settings.user:
        raise SettingsError("no credentials: set PERFSTREAM_GRAFANA_TOKEN, or --user with PERFSTREAM_GRAFANA_PASSWORD")
    credential = settings.token.reveal() if settings.token else (settings.user, settings.password.reveal())
    api = GrafanaApi.from_url(settings.url.rstrip("/"), credential=credential, timeout=TIMEOUT_S)
    try:
        if not any(found["uid"] == FOLDER_UID for found in api.folder.get_all_folders()):
            api.folder.create_folder(folder, uid=FOLDER_UID)
        addresses = []
        for board in boards.ALL:
            dashboard = json.loads(parts.build(board))
            answer = api.dashboard.update_dashboard(
                {"dashboard": dashboard, "folderUid": FOLDER_UID, "overwrite": True, "message": "perfstream"}
            )
            addresses.append(settings.url.rstrip("/") + answer["url"])
    except GrafanaUnauthorizedError as error:
        raise SettingsError(f"Grafana at {settings.url} does not accept these credentials") from error
    except GrafanaClientError as error:
        raise PerfstreamError(f"Grafana refused: {error.message}; does this account have the Editor role?") from error
    except GrafanaException as error:
        raise UnavailableError(f"Grafana at {settings.url} failed: {error.message}") from error
    except (OSError, niquests.exceptions.RequestException) as error:
        raise UnavailableError(
            f"no Grafana answers at {settings.url}; is it running? ({type(error).__name__})"
        ) from error
    return addresses
