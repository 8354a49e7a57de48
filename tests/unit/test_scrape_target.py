import pytest

from collectors.scrapers.settings import ScrapeTarget
from runtime.settings import Secret
from streams.schema.errors import SettingsError


def test_addresses_and_names():
    target = ScrapeTarget("https://web:8443/", path="debug/pprof/", profiles={"profile": "20", "heap": 60, "block": 0})
    assert target.url("heap") == "https://web:8443/debug/pprof/heap"
    assert target.url("profile") == "https://web:8443/debug/pprof/profile?seconds=10"
    assert target.intervals() == {"profile": 20, "heap": 60}
    assert target.labelled_service == "web:8443"
    assert ScrapeTarget("http://[::1]:6060/app").url("allocs") == "http://[::1]:6060/app/debug/pprof/allocs"


def test_a_secret_does_not_show():
    assert "hunter2" not in repr(ScrapeTarget("http://a", authorization=Secret("Bearer hunter2")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "127.0.0.1:6060"}, "address must be http://host:port"),
        ({"address": "ftp://a"}, "address must be"),
        ({"address": "http://a:99999"}, "address must be"),
        ({"address": "http://a b"}, "address must be"),
        ({"address": "http://a\r\nX: y"}, "address must be"),
        ({"address": "http://a", "path": "/x y"}, "address must be"),
        ({"address": "http://a?x=1"}, "address must be"),
        ({"address": "http://me:hunter2@a"}, "set authorization"),
        ({"address": "http://a", "authorization": Secret("hunter2\r\nX: y")}, "one line"),
        ({"address": "http://a", "profiles": {"cpu": 10}}, "there is no 'cpu'; there are profile, heap"),
        ({"address": "http://a", "profiles": {"heap": "often"}}, "profiles.heap"),
        ({"address": "http://a", "profiles": {"heap": -1}}, "profiles.heap"),
        ({"address": "http://a", "profiles": {"profile": 5}}, "at least 10"),
        ({"address": "http://a", "seconds": 0}, "seconds"),
        ({"address": "http://a", "timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(SettingsError, match=message) as error:
        ScrapeTarget(**given)
    assert "hunter2" not in str(error.value)
