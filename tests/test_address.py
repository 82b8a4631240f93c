import re

import pytest
import redis.sentinel

from coordinator.__main__ import main
from hpopt.client import Client
from hpopt.core.address import check_url, in_words, without_credentials


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
        ValueError, match=r"url='.*: (use redis://|hpopt uses database 0|write what is special|its port is)"
    ) as caught:
        check_url(url)
    assert not re.search("SEC|RET", str(caught.value))


def test_spelling_of_urls() -> None:
    """Space around a URL, and capitals in its scheme, come of copying: they mean nothing."""
    assert check_url(" REDIS://Host:1\n") == "redis://Host:1"


def test_blame_for_a_port() -> None:
    """A port that is none is not taken for a password that has to be quoted, nor the other way round."""
    with pytest.raises(ValueError, match="its port is no number up to 65535"):
        check_url("redis://:pass@host:99999")
    with pytest.raises(ValueError, match="write what is special in a password as %XX"):
        check_url("redis://:pa/ss@host:6379")


@pytest.mark.parametrize(
    "url",
    [
        "redis://host?foo=1",
        "redis://host?ssl_cert_reqs=none",
        "redis://:SECRET@host?socket_timeout=soon",
        "rediss://host?ssl_cert_reqs=foo",
    ],
)
def test_options_of_no_use(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What redis-py makes of the options of a URL is seen before anything is connected, by every side."""
    with pytest.raises(
        ValueError, match=r"url='rediss?://host\?.*' has options of no use \(.*\): use those of"
    ) as caught:
        Client(url)
    assert "SECRET" not in str(caught.value)
    for words in (["--url", url], ["--url", url, "--check"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "has options of no use" in capsys.readouterr().err


def test_errors_in_words() -> None:
    """The insides of a connection pool are no help to anybody."""
    error = redis.sentinel.MasterNotFoundError("No master found for 'x' : <redis.sentinel.Sentinel(...)>")
    assert in_words(error) == "No master found for 'x'"
