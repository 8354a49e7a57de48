"""pprof as a body or as a multipart form: ``profile``, ``prev_profile``, ``sample_type_config``."""

from __future__ import annotations

import json
import re

from collectors.ingest import nodespy, pprof_reader
from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import SampleType, Series, Upload

MAX_PARTS = 16
_BOUNDARY = re.compile(r'boundary="?([^";,\r\n]{1,70})"?', re.IGNORECASE)
_FIELD = re.compile(rb'(?:^|[;\s])name="([^"\r\n]*)"', re.IGNORECASE)


def decode(body: bytes, upload: Upload) -> list[Series]:
    """Return the one series of a pprof body; none when it is empty.

    Raises:
        RefusedError: 422, the form cannot be read.
        CorruptRecordError: the profile cannot be read.
    """
    parts = {"profile": body}
    if "multipart/form-data" in upload.content_type:
        parts = fields(body, upload.content_type)
    elif body[:2] == b"--" and (end := body.find(b"\r\n", 0, 80)) > 0:
        # A form whose content type a proxy or an old client lost.
        parts = fields(body, f'boundary="{body[2:end].decode("latin-1")}"')
    data = parts.get("profile", b"")
    if not data:
        return []
    before = parts.get("prev_profile", b"")
    renamed = nodespy.plain if upload.spy == nodespy.SPY else None
    return [
        Series(
            upload.owner,
            pprof_reader.decode(data, renamed=renamed),
            upload.name.rpartition(".")[2],
            _config(parts.get("sample_type_config", b"")),
            pprof_reader.decode(before, renamed=renamed) if before else None,
        )
    ]


def fields(body: bytes, content_type: str) -> dict[str, bytes]:
    """Return {field: bytes} of a multipart form (RFC 7578).

    Raises:
        RefusedError: 422, it has no boundary, too many parts, or ends early.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise RefusedError(422, "not_profile", "the multipart form has no boundary")
    mark = b"\r\n--" + found.group(1).encode("latin-1")
    pieces = (b"\r\n" + body).split(mark, MAX_PARTS + 2)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise RefusedError(422, "not_profile", "the multipart form is cut short, or has too many parts")
    out = {}
    for piece in pieces[1:-1]:
        head, blank, data = piece.partition(b"\r\n\r\n")
        name = _FIELD.search(head)
        if not blank or name is None:
            raise RefusedError(422, "not_profile", "a part of the multipart form has no name")
        out[name.group(1).decode("latin-1")] = data
    return out


def _config(text: bytes) -> dict[str, SampleType] | None:
    if not text:
        return None
    try:
        given = json.loads(text)
        return {
            str(name): SampleType(str(one.get("display-name") or ""), bool(one.get("cumulative")))
            for name, one in given.items()
        } or None
    except (ValueError, AttributeError, RecursionError) as error:
        raise RefusedError(422, "not_profile", "sample_type_config is no JSON object of objects") from error
