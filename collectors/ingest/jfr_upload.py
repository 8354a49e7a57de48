"""The ``jfr`` format of ``/ingest``: a recording as the body, or the agent's form with ``jfr`` and ``labels``."""

from __future__ import annotations

from dataclasses import replace

from collectors.ingest import form, jfr
from collectors.ingest.labels import ALIASES
from collectors.ingest.upload import Series, Upload

# Labels that no column is taken from would only cut profiles into pieces.
_KEPT = frozenset(name for names in ALIASES.values() for name in names)


def decode(body: bytes, upload: Upload) -> list[Series]:
    """Return one series for each family of events and each owner that the recording's labels name.

    The time is that of the request, as in Pyroscope, not the recording's.

    Raises:
        RefusedError: 422, the form cannot be read.
        CorruptRecordError: the recording or its labels cannot be read.
    """
    parts = {"jfr": body}
    if "multipart/form-data" in upload.content_type:
        parts = form.fields(body, upload.content_type)
    found = jfr.decode(parts.get("jfr", b""), parts.get("labels", b""), upload.rate, _KEPT)
    start, length = upload.start_ns, upload.end_ns - upload.start_ns
    return [
        Series({**upload.owner, **part.labels}, replace(part.profile, time_ns=start, duration_ns=length), part.metric)
        for part in found
    ]
