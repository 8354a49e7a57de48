"""Publishes the dashboards to a Grafana over its HTTP API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
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

    url = settings.url.rstrip("/")
    parts_of_url = urlsplit(url)
    if parts_of_url.scheme not in ("http", "https") or not parts_of_url.hostname or parts_of_url.username is not None:
        raise SettingsError("that is not Grafana's address; give --url http://HOST:3000, with no user in it")
    if not settings.token and not settings.user:
        raise SettingsError("no credentials: set PERFSTREAM_GRAFANA_TOKEN, or --user with PERFSTREAM_GRAFANA_PASSWORD")
    credential = settings.token.reveal() if settings.token else (settings.user, settings.password.reveal())
    api = GrafanaApi.from_url(url, credential=credential, timeout=TIMEOUT_S)
    try:
        _make_folder(api, folder)
        return [url + _publish(api, parts.build(board)) for board in boards.ALL]
    except GrafanaUnauthorizedError as error:
        raise SettingsError(f"Grafana at {url} does not accept these credentials") from error
    except GrafanaClientError as error:
        if error.status_code == HTTPStatus.FORBIDDEN:
            raise SettingsError(f"Grafana at {url} does not let this account edit; give it the Editor role") from error
        raise PerfstreamError(f"Grafana at {url} refused: {_short(error.message)}") from error
    except GrafanaException as error:
        raise UnavailableError(f"Grafana at {url} failed ({error.status_code}); see its log, and try again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"what answers at {url} is not Grafana's API; give Grafana's address") from error
    except (OSError, niquests.exceptions.RequestException) as error:
        raise UnavailableError(f"no Grafana answers at {url}; is it running? ({type(error).__name__})") from error


def _make_folder(api: Any, title: str) -> None:  # noqa: ANN401 - the client is untyped
    from grafana_client.client import GrafanaClientError

    try:
        api.folder.get_folder(FOLDER_UID)
    except GrafanaClientError as error:
        if error.status_code != HTTPStatus.NOT_FOUND:
            raise
        api.folder.create_folder(title, uid=FOLDER_UID)


def _publish(api: Any, dashboard: str) -> str:  # noqa: ANN401
    """Replace one dashboard; returns its path."""
    document = {"dashboard": json.loads(dashboard), "folderUid": FOLDER_UID, "overwrite": True, "message": "perfstream"}
    return str(api.dashboard.update_dashboard(document)["url"])


def _short(message: object) -> str:
    return " ".join(str(message).split())[:200]
