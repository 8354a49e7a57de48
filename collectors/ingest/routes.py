"""Every path that takes profiles, declared once: how its body is decoded, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from collectors.ingest import connect, formats, otlp
from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import Series, from_parameters
from streams.schema.errors import CorruptRecordError


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose body has been read. Header names are any case; ``parameters`` holds each name's first value."""

    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Return the body's content type, "" when none is given."""
        return self.headers.get("Content-Type", "")


@dataclass(frozen=True, slots=True)
class Route:
    """How one path is served: ``decode`` returns a request's series or raises ``RefusedError``.

    ``answer`` gives (content type, body) of a success; ``statuses`` maps statuses of refusals where the path's protocol
    says something else; ``too_late`` is the status of a profile from outside of the time window.
    """

    decode: Callable[[Request], list[Series]]
    answer: Callable[[Request], tuple[str, bytes]] = lambda _request: ("", b"")
    statuses: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    too_late: int = 400
    check: Callable[[Request], object] = lambda _request: None
    """Looks at the parameters before the body is read."""


def _ingest(request: Request) -> list[Series]:
    return formats.decode(request.body, from_parameters(request.parameters, request.content_type))


def _push(request: Request) -> list[Series]:
    return connect.decode(request.body, request.content_type)


def _pushed(request: Request) -> tuple[str, bytes]:
    return (connect.JSON, b"{}") if request.content_type.startswith(connect.JSON) else (connect.PROTO, b"")


def _otlp(request: Request) -> list[Series]:
    try:
        return otlp.decode(request.body, request.content_type or otlp.PROTO)
    except CorruptRecordError as error:
        raise RefusedError(400, "not_profile", str(error)) from error


ROUTES: Mapping[str, Route] = MappingProxyType(
    {
        "/ingest": Route(
            _ingest,
            too_late=422,
            check=lambda request: from_parameters(request.parameters, request.content_type),
        ),
        otlp.PATH: Route(_otlp, lambda request: otlp.answer(request.content_type)),
        # The Connect protocol's statuses: what is too large has exhausted a resource.
        connect.PATH: Route(_push, _pushed, MappingProxyType({413: 429, 422: 400, 408: 400})),
    }
)
