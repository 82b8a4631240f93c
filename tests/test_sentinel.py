"""A primary with a replica behind a sentinel: operators, trainers and coordinators find whoever is the primary."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpopt
from coordinator.valkey import find_server
from hpopt.core.address import Sentinels, check_url, sentinels, without_credentials
from tests.server import Program, Server, start_coordinator, until
from tests.studies import SMALL, accuracy

SENTINEL = """
port {port}
bind 127.0.0.1
sentinel monitor study 127.0.0.1 {primary} 1
sentinel down-after-milliseconds study 500
sentinel failover-timeout study 2000
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def following(tmp_path: Path, name: str, **settings: str) -> Server:
    """A server in a folder of its own, listening on loopback."""
    folder = tmp_path / name
    folder.mkdir()
    return Server(folder, bind="127.0.0.1", appendfsync="everysec", **settings).start()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[str, Server, Server, Program]]:
    """The URL of a sentinel, the primary, its replica, and the sentinel's process."""
    ports = [str(free_port()) for _ in range(3)]
    primary = following(tmp_path, "primary", port=ports[0])
    replica = following(tmp_path, "replica", port=ports[1], replicaof=f"127.0.0.1 {ports[0]}")
    until(lambda: bool(replica.redis.info("replication")["master_link_status"] == "up"), "a replica that is up to date")
    config = tmp_path / "sentinel.conf"
    config.write_text(SENTINEL.format(port=ports[2], primary=ports[0]))
    sentinel = Program([find_server(), str(config), "--sentinel"])
    try:
        sentinel.wait_for(r"\+slave slave")
        yield f"redis+sentinel://127.0.0.1:{ports[2]}/study", primary, replica, sentinel
    finally:
        sentinel.kill()
        replica.close()
        primary.close()


def test_study_goes_on_at_the_new_primary(watched: tuple[str, Server, Server, Program], tmp_path: Path) -> None:
    """When the primary is killed, reports and samples go to the replica that takes over, and what it has is kept."""
    url, primary, replica, sentinel = watched
    coordinator = start_coordinator(url)
    try:
        with hpopt.create(**SMALL, url=url, save_path=tmp_path / "results", study="failover") as hpo:
            config = hpo.get_next_sample()
            assert config is not None
            hpopt.report(config, accuracy(config, 1))
            offset = primary.redis.info("replication")["master_repl_offset"]
            until(lambda: bool(replica.redis.info("replication")["slave_repl_offset"] >= offset), "replicated reports")
            primary.kill()
            assert hpopt.report(config, accuracy(config, 2)) == hpopt.status.RUNNING
            sentinel.wait_for(r"\+switch-master study")
            (row,) = hpo.trials()
            assert (row.state, row.step) == ("running", 2)
            other = hpo.get_next_sample()
            assert other is not None
            assert other["trial_id"] == 1
        assert replica.redis.info("replication")["role"] == "master"
    finally:
        coordinator.kill()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis+sentinel://a:1,b:2/x", Sentinels([("a", 1), ("b", 2)], "x", {})),
        ("redis+sentinel://a,b/x", Sentinels([("a", 26379), ("b", 26379)], "x", {})),
        ("redis+sentinel://me:p%40ss@a:1/x", Sentinels([("a", 1)], "x", {"username": "me", "password": "p@ss"})),
        ("redis+sentinel://:secret@a:1/x", Sentinels([("a", 1)], "x", {"password": "secret"})),
        ("redis://a:1", None),
    ],
)
def test_sentinel_urls_are_read(url: str, found: Sentinels | None) -> None:
    """The URL names sentinels, the service, and the primary's credentials."""
    assert sentinels(check_url(url)) == found
    assert "secret" not in without_credentials(url)


@pytest.mark.parametrize("url", ["redis+sentinel://a:1", "redis+sentinel://a:1/", "redis+sentinel://a:x/y"])
def test_sentinel_urls_are_checked(url: str) -> None:
    """A URL without a service, or with a port that is none, names the remedy."""
    with pytest.raises(ValueError, match="name sentinels and service"):
        check_url(url)
