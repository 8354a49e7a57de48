"""Every format of ``/ingest``, declared once: ``(body, upload) -> series``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from collectors.ingest import form, jfr_upload, speedscope, text, trie
from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import Series, Upload
from streams.schema.errors import CorruptRecordError

Decoder = Callable[[bytes, Upload], list[Series]]

FORMATS: Mapping[str, Decoder] = MappingProxyType(
    {
        "folded": text.folded,
        "groups": text.folded,
        "jfr": jfr_upload.decode,
        "lines": text.lines,
        "pprof": form.decode,
        "speedscope": speedscope.decode,
        "tree": trie.tree,
        "trie": trie.trie,
    }
)
_CONTENT_TYPE = "binary/octet-stream+"
"""Before ``trie`` or ``tree``: a content type that names the format, whatever ``format`` says."""


def decode(body: bytes, upload: Upload) -> list[Series]:
    """Decode a body by its content type or the request's ``format``; else a form is pprof, anything else folded text.

    Raises:
        RefusedError: 422, the body is not of its format, or the format is unknown.
    """
    name = upload.format or ("pprof" if "multipart/form-data" in upload.content_type else "folded")
    if upload.content_type in (f"{_CONTENT_TYPE}trie", f"{_CONTENT_TYPE}tree"):
        name = upload.content_type.removeprefix(_CONTENT_TYPE)
    decoder = FORMATS.get(name)
    if decoder is None:
        raise RefusedError(422, "format", f"format {name[:32]!r} is none of {', '.join(FORMATS)}")
    try:
        return decoder(body, upload)
    except CorruptRecordError as error:
        raise RefusedError(422, "not_profile", str(error)) from error
