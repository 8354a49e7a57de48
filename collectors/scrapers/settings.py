"""Settings of the scraper: one ``[[agent.scrape]]`` table for each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from collectors.scrapers.fetch import Access
from runtime.settings import Secret
from streams.schema.errors import SettingsError

PROFILES = ("profile", "heap", "allocs", "goroutine", "mutex", "block", "threadcreate")
DEFAULT_PROFILES: Mapping[str, str | int] = MappingProxyType(
    {"profile": 15, "allocs": 30, "mutex": 30, "block": 30, "heap": 60, "goroutine": 60, "threadcreate": 60}
)
DEFAULT_PATH = "/debug/pprof"
MAX_SECONDS = 300
MAX_INTERVAL_S = 86_400
MAX_DISCOVERED = 5000


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """One process with Go's pprof endpoints. Intervals and times in seconds."""

    address: str
    """Where it listens: ``http://host:port`` or ``https://host:port``."""
    path: str = DEFAULT_PATH
    service: str = ""
    """Whose profiles these are; the address's ``host:port`` when empty."""
    version: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    profiles: Mapping[str, str | int] = field(default_factory=lambda: DEFAULT_PROFILES)
    """Which profiles and how often: name to interval; 0 leaves one out."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Whole paths of the profiles that do not stand under ``path``."""
    seconds: int = 10
    """How long the target samples its CPU for one ``profile``; the rest of that profile's interval is not seen."""
    timeout_s: float = 10.0
    """For one request as a whole, ``seconds`` not counted."""
    authorization: Secret = Secret("")
    """Value of the Authorization header, for example ``Bearer ...``."""
    ca_file: str = ""
    """Certificates to trust instead of the system's."""
    cert_file: str = ""
    """A client certificate; ``key_file`` when its key stands in a file of its own."""
    key_file: str = ""
    insecure: bool = False
    """Accept any certificate: encrypted, and not protected from anybody in between."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.address)
            well = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and self.address.isascii()
        except ValueError:
            parts, well = None, None
        if not parts or not well or parts.query or parts.fragment or any(c <= " " for c in self.address + self.path):
            raise SettingsError("address must be http://host:port or https://host:port")
        if parts.username is not None:
            raise SettingsError("address must not hold a password; set authorization")
        if any(not whole.startswith("/") or "#" in whole or min(whole) <= " " for whole in self.paths.values()):
            raise SettingsError("paths must begin with / and hold neither # nor a space")
        if any(c < " " or c > "~" for c in self.authorization.reveal()):
            raise SettingsError("authorization must be one line of plain ASCII")
        if not 1 <= self.seconds <= MAX_SECONDS:
            raise SettingsError(f"seconds must be 1 to {MAX_SECONDS}")
        if not 0 < self.timeout_s <= MAX_SECONDS:
            raise SettingsError(f"timeout_s must be more than 0 and at most {MAX_SECONDS}")
        if self.intervals().get("profile", MAX_INTERVAL_S) < self.seconds:
            raise SettingsError(f"profiles.profile must be at least {self.seconds}, the seconds that one takes")

    def intervals(self) -> dict[str, int]:
        """Return the interval in seconds of each profile that is wanted.

        Raises:
            SettingsError: an unknown profile, or an interval that is none.
        """
        wanted = {}
        for name, given in self.profiles.items():
            if name not in PROFILES:
                raise SettingsError(f"profiles: there is no {name!r}; there are {', '.join(PROFILES)}")
            try:
                interval = int(given)
            except ValueError:
                interval = -1
            if not 0 <= interval <= MAX_INTERVAL_S:
                raise SettingsError(f"profiles.{name} must be whole seconds, at most {MAX_INTERVAL_S}; 0 leaves it out")
            if interval:
                wanted[name] = interval
        return wanted

    @property
    def host(self) -> str:
        """Return ``host:port`` as in the address, for names and labels."""
        return urlsplit(self.address).netloc

    @property
    def labelled_service(self) -> str:
        """Return the service that rows carry."""
        return self.service or self.host

    @property
    def label(self) -> str:
        """Return the address as metrics and log lines show it."""
        return self.address.rstrip("/") + ("" if self.path == DEFAULT_PATH else f"/{self.path.strip('/')}")

    @property
    def access(self) -> Access:
        """Return how to be let in."""
        return Access(self.authorization, self.ca_file, self.cert_file, self.key_file, self.insecure)

    def named(self, profile: str) -> str:
        """Return how metrics and log lines name where a profile comes from."""
        return self.place(profile) if profile in self.paths else self.label

    def place(self, profile: str) -> str:
        """Return the address of one profile, without what it is asked for: the same for the same numbers."""
        whole = self.paths.get(profile) or f"/{self.path.strip('/')}/{profile}"
        return self.address.rstrip("/") + whole

    def url(self, profile: str) -> str:
        """Return what is asked for one profile."""
        place = self.place(profile)
        return f"{place}{'&' if '?' in place else '?'}seconds={self.seconds}" if profile == "profile" else place


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """``[agent.discovery]``: where scrape targets are found, and what they have in common."""

    files: tuple[str, ...] = ()
    """Patterns of files in Prometheus's ``file_sd`` form (JSON)."""
    pods: bool = True
    """Scrape the pods of this node that ask for it by annotation, where ``[agent.kubernetes]`` reaches the API."""
    max_targets: int = 256
    seconds: int = 10
    """As in ``[[agent.scrape]]``, like the rest."""
    timeout_s: float = 10.0
    authorization: Secret = Secret("")
    """Sent to the targets of files only: anybody who may annotate a pod could collect it."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_targets <= MAX_DISCOVERED:
            raise SettingsError(f"setting agent.discovery.max_targets must be 0 to {MAX_DISCOVERED}")
        try:  # what a target refuses is said at the start and not at each of them
            ScrapeTarget("http://host", seconds=self.seconds, timeout_s=self.timeout_s,
                         authorization=self.authorization)  # fmt: skip
        except SettingsError as error:
            raise SettingsError(f"setting agent.discovery: {error}") from error
