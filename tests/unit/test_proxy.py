"""Which proxy the environment names."""

from __future__ import annotations

import pytest

from opsboard.httpc.connection import Place
from opsboard.httpc.proxy import proxy_for

API, PLAIN = Place("api.example.com", 443, tls=True), Place("api.example.com", 8080, tls=False)
BOTH = {"https_proxy": "http://proxy:3128", "HTTP_PROXY": "other"}


def where(place: Place, environment: dict[str, str]) -> str | None:
    found = proxy_for(place, environment)
    return None if found is None else str(found.place)


def test_each_scheme_has_its_own() -> None:
    assert where(API, BOTH) == "proxy:3128"
    assert where(PLAIN, BOTH) == "other:1080"
    assert where(API, {"ALL_PROXY": "http://all:1"}) == "all:1"
    assert where(API, {"https_proxy": "", "HTTPS_PROXY": "http://upper:2"}) == "upper:2"
    assert where(API, {}) is None


@pytest.mark.parametrize(
    ("place", "listed", "straight"),
    [
        (API, "*", True),
        (API, "example.com", True),
        (API, ".example.com", True),
        (API, "*.example.com", True),
        (API, "ample.com", False),
        (API, "other.org, api.example.com:443", True),
        (API, "api.example.com:8443", False),
        (API, "com.", False),
        (Place("10.1.2.3", 443, tls=True), "10.0.0.0/8", True),
        (Place("10.1.2.3", 443, tls=True), "10.1.2.3", True),
        (Place("10.1.2.3", 443, tls=True), "2.3", False),
        (Place("fd00::1", 443, tls=True), "[fd00::1]", True),
        (Place("localhost", 443, tls=True), "", True),
        (Place("127.0.0.9", 443, tls=True), "", True),
    ],
    ids=range(14),
)
def test_what_goes_straight(place: Place, listed: str, *, straight: bool) -> None:
    assert (where(place, {**BOTH, "no_proxy": listed}) is None) is straight


def test_a_password_stays_a_secret() -> None:
    found = proxy_for(API, {"https_proxy": "http://ann:pass@proxy"})
    assert found is not None
    assert "pass" not in repr(found)
    assert found.headers == {"Proxy-Authorization": "Basic YW5uOnBhc3M="}
