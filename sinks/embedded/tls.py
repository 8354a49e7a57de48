"""TLS of the listener."""

from __future__ import annotations

import ssl

from sinks.embedded.settings import Options
from streams.schema.errors import SettingsError


def context(options: Options) -> ssl.SSLContext | None:
    """Return the server's side of TLS (1.2 and newer), or None when no certificate is set.

    Both files are read now: the store cannot reach them any more when it is confined.

    Raises:
        SettingsError: a file cannot be read, is no PEM, or the key is another certificate's or encrypted.
    """
    if not options.cert_file:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password OpenSSL does not ask on the terminal for that of an encrypted key.
        made.load_cert_chain(options.cert_file, options.key_file or None, password="")
    except OSError as error:
        reason = (error.reason or "no PEM, or encrypted") if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            f"store.cert_file {options.cert_file} with store.key_file {options.key_file or '(the same file)'} "
            f"cannot be used: {reason}"
        ) from error
    return made
