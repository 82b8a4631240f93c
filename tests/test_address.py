import re

import pytest

from hpopt.core.address import check_url, without_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host"),
        ("redis://user:pass@host:1/0?db=0", "redis://host:1/0?db=0"),
        ("rediss://:p@ss@host", "rediss://host"),
        ("redis://host?username=user&password=pass", "redis://host"),
        ("redis://host?password=pass&socket_connect_timeout=1", "redis://host?socket_connect_timeout=1"),
        ("unix://user:pass@/run/a@b/s", "unix:///run/a@b/s"),
        ("unix:///run/s?password=pass&db=0", "unix:///run/s?db=0"),
    ],
)
def test_urls_that_can_be_used(url: str, shown: str) -> None:
    """A URL is shown without user and password, wherever they stand."""
    assert check_url(url) == url
    assert without_credentials(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "SECRET@host", "SECRET:SECRET@host:6379", "http://:SECRET@host", "redis://:SECRET@host/1",
        "redis://:SECRET@host?db=1", "redis://:SEC/RET@host", "redis://:12/RET@host", "redis://:SEC?RET@host",
        "redis://:SEC[RET@host", "redis://:SECRET@host:port", "redis://:SECRET@host:99999", "redis://host:port",
        "redis://host:99999", "unix://:SECRET@/s?db=3", "unix://:SECRET@", "",
    ],
)  # fmt: skip
def test_urls_that_cannot_be_used(url: str) -> None:
    """What cannot be used is a ValueError with a remedy, and without the password."""
    with pytest.raises(
        ValueError, match=r"url='.*: (use redis://|hpopt uses database 0|write what is special)"
    ) as caught:
        check_url(url)
    assert not re.search("SEC|RET", str(caught.value))
