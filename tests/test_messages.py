import contextlib
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.codec import MAX_BYTES, VERSION, DecodeError, WrongVersionError, decode, encode
from hpopt.core.messages import (
    Ask,
    Close,
    Create,
    Created,
    Finalize,
    Nothing,
    OutOfMemory,
    Query,
    Refusal,
    Release,
    Report,
    Sample,
    Start,
    Verdict,
    Withdraw,
)
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from tests.strategies import messages

SPEC = StudySpec(
    full_dataset_size=1000,
    num_full_iterations=10,
    search_space=Space({"lr": SearchSpace("loguniform", [0.001, 0.1]), "act": SearchSpace("choice", ["relu", None])}),
    num_trials=6,
    max_iterations=4,
    subset_ratio=1.0,
    seed=1,
)
SPEC_HEX = """
    de001eb166756c6c5f646174617365745f73697a65cd03e8b36e756d5f66756c6c5f697465726174696f6e730aac7365617263685f7370616365
    9293a26c72aa6c6f67756e69666f726d92cb3f50624dd2f1a9fccb3fb999999999999a93a3616374a663686f69636592a472656c75c0aa736561
    7263685f616c67a962617965735f6f7074aa6561726c795f73746f70c0a46d6f6465a36d6178a66d6574726963a36d4150af6e756d5f696e6974
    5f747269616c7305aa6e756d5f747269616c7306ae6d61785f697465726174696f6e7304ae6d696e5f697465726174696f6e73c0b07265647563
    74696f6e5f666163746f7202ac6e756d5f627261636b657473c0ac7375627365745f726174696fcb3ff0000000000000af62617463685f73697a
    655f6e616d65c0ac696d6167655f726573697a65920000b365787065637465645f74696d655f726174696fcb4010000000000000b46e6f6e5f70
    7572655f747261696e5f726174696fcb3fc999999999999aab6e756d5f776f726b65727301a56b61707061cb40049ba5e353f7cfab6b61707061
    5f6465636179cb3ff0000000000000b16b617070615f64656361795f64656c617900ab6163717569736974696f6ec0a47365656401b864656661
    756c745f68797065725f706172616d657465727390ae6c61756e63685f74696d656f7574c0
    ac67726163655f706572696f64cb3fb999999999999aa96d696e5f706565727301
    ac67726163655f747269616c7300 ad6c656e69656e745f657665727903
"""
EARLIER_SPEC_HEX = (
    SPEC_HEX.replace("de001e", "de0019")
    .replace("ab6163717569736974696f6ec0", "")
    .replace("ac67726163655f706572696f64cb3fb999999999999aa96d696e5f706565727301", "")
    .replace("ac67726163655f747269616c7300 ad6c656e69656e745f657665727903", "")
)
GOLDEN = [
    (Create("u1", "s1", SPEC, resume=True, private=True), f"980100 a27531 a27331 {SPEC_HEX} c3c2c3"),
    (Ask("u1", "s1", 7, "now", ((3, 2, "a"),)), "970101 a27531 a27331 07 a36e6f77 91930302a161"),
    (Query("u1", 3, 2), "950102 a27531 0302"),
    (Start("u1", 3, 2, "r1", 1, "h:/l"), "980103 a27531 0302 a27231 01 a4683a2f6c"),
    (Report("u1", 3, 2, "r1", 5, 0.75), "980104 a27531 0302 a27231 05 cb3fe8000000000000"),
    (OutOfMemory("u1", 3, 2), "950105 a27531 0302"),
    (Finalize("u1", 3, 2, crashed=True), "960106 a27531 0302 c3"),
    (Release("u1", 3, 2), "950107 a27531 0302"),
    (Close("u1", "s1"), "940108 a27531 a27331"),
    (Withdraw("u1", "s1", (7, 8), keep=True), "96010e a27531 a27331 920708 c3"),
    (Verdict(2, "r1", 1, 5, 6, "why", ("x",)), "9a0109 02 a27231 0105 06 a3776879 91a178 c2"),
    (Created("u1", SPEC, ("note",), {"checked": 6}), f"96010a a27531 {SPEC_HEX} 91a46e6f7465 81a7636865636b656406"),
    (Sample(7, 3, 2, 1, {"lr": 0.5, "act": None}), "97010b 07030201 82a26c72cb3fe0000000000000a3616374c0"),
    (Nothing(7, done=True), "94010c 07 c3"),
    (Refusal(-1, "exists", "live"), "95010d ff a6657869737473 a46c697665"),
]
TAGS = {Query: 2, Start: 3, Report: 4, Finalize: 6}


def packed(tag: Any, *fields: Any, version: Any = VERSION) -> bytes:
    """A message made by hand."""
    data: bytes = msgpack.packb([version, tag, *fields])
    return data


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=[str(message)[:30] for message, _ in GOLDEN])
def test_bytes_are_pinned(message: Any, golden: str) -> None:
    """What this release writes, the next one and the one before can read: the bytes do not change."""
    assert encode(message).hex() == "".join(golden.split())
    assert decode(encode(message)) == message


def test_a_spec_of_an_earlier_release_is_read() -> None:
    """A study stored before `acquisition` and the guards of median_stop existed goes on, with their defaults."""
    earlier = bytes.fromhex("".join(f"95010a a27531 {EARLIER_SPEC_HEX} 91a46e6f7465".split()))
    assert len(earlier) == len(encode(Created("u1", SPEC, ("note",)))) - 76
    assert decode(earlier) == Created("u1", SPEC, ("note",))


@given(messages)
def test_round_trip(message: Any) -> None:
    """Every message is the same after its journey."""
    assert decode(encode(message), type(message)) == message


def test_missing_fields_take_their_defaults() -> None:
    """A message of an earlier version, without the newest fields, can be read."""
    assert decode(packed(TAGS[Finalize], "u", 3, 2)) == Finalize("u", 3, 2, crashed=False)
    assert decode(packed(TAGS[Start], "u", 3, 2, "r", 1)) == Start("u", 3, 2, "r", 1, log="")


def test_extra_fields_are_ignored() -> None:
    """A message of the next version, with fields unknown here, can be read."""
    assert decode(packed(TAGS[Query], "u", 3, 2, {"more": 1}, None, version=VERSION + 1)) == Query("u", 3, 2)


def test_spec_ignores_unknown_arguments() -> None:
    """So can the spec of a study with arguments unknown here."""
    wire = {**SPEC.to_wire(), "colour": "blue"}
    assert decode(packed(0, "u", "s", wire)) == Create("u", "s", SPEC)


def test_whole_numbers_are_scores_too() -> None:
    """An encoder that writes 2.0 as 2 is understood."""
    score = decode(packed(TAGS[Report], "u", 3, 2, "a", 5, 2)).score
    assert (type(score), score) == (float, 2.0)


YES = True
NESTED = b"\x91" * 300 + b"\xc0"
DEEP_CHOICE = (
    b"\x95\x01\x00\xa1u\xa1s\x82\xacsearch_space\x91\x93\xa1x\xa6choice\x91" + NESTED + b"\xacimage_resize\x92\0\0"
)
SPACE_OF_TOO_MANY = [[f"x{i}", "choice", list(range(100))] for i in range(200)]
BAD = {
    "nothing": b"",
    "too long": b"\xc0" * (MAX_BYTES + 1),
    "truncated": encode(Report("u", 1, 1, "a", 1, 0.5))[:-1],
    "trailing bytes": encode(Query("u", 1, 1)) + b"\0",
    "an array that claims 2**31 items": b"\xdd\x7f\xff\xff\xff",
    "a map that claims 2**31 items": b"\xdf\x7f\xff\xff\xff",
    "a string that claims 2**31 bytes": b"\xdb\x7f\xff\xff\xff",
    "never used byte": b"\xc1",
    "deep nesting": b"\x91" * 60_000,
    "nesting in a choice": DEEP_CHOICE,
    "nesting in a field": b"\x95\x01\x02\xa1u" + NESTED + b"\x01",
    "text that is no UTF-8": b"\x95\x01\x02\xa1\xff\x01\x01",
    "timestamp": b"\x95\x01\x02\xd6\xff\0\0\0\0\x01\x01",
    "extension": b"\x95\x01\x02\xd4\x05\0\x01\x01",
    "list as a key": b"\x81\x90\x01",
    "a map": msgpack.packb({"version": 1}),
    "an int": msgpack.packb(5),
    "empty list": msgpack.packb([]),
    "no type": msgpack.packb([1]),
    "version is text": packed(2, "u", 1, 1, version="1"),
    "version is a bool": packed(2, "u", 1, 1, version=True),
    "tag is a bool": packed(YES, "u", "s", 1),
    "tag is a float": packed(2.0, "u", 1, 1),
    "unknown tag": packed(14, "u"),
    "negative tag": packed(-1, "u"),
    "missing field": packed(TAGS[Query], "u", 3),
    "bool for int": packed(TAGS[Query], "u", YES, 2),
    "float for int": packed(TAGS[Query], "u", 3.0, 2),
    "text for int": packed(TAGS[Query], "u", "3", 2),
    "int for bool": packed(TAGS[Finalize], "u", 3, 2, 1),
    "None for int": packed(TAGS[Query], "u", None, 2),
    "int too large": packed(TAGS[Query], "u", 2**31, 2),
    "int too small": packed(TAGS[Query], "u", -2, 2),
    "NaN score": packed(TAGS[Report], "u", 3, 2, "a", 5, float("nan")),
    "infinite score": packed(TAGS[Report], "u", 3, 2, "a", 5, float("-inf")),
    "bool score": packed(TAGS[Report], "u", 3, 2, "a", 5, YES),
    "text score": packed(TAGS[Report], "u", 3, 2, "a", 5, "0.5"),
    "bytes for text": packed(TAGS[Query], b"u", 3, 2),
    "empty uid": packed(TAGS[Query], "", 3, 2),
    "uid with a brace": packed(TAGS[Query], "u}", 3, 2),
    "uid with a line end": packed(TAGS[Query], "u\n", 3, 2),
    "uid too long": packed(TAGS[Query], "u" * 65, 3, 2),
    "life with a blank": packed(TAGS[Start], "u", 3, 2, "a b"),
    "unknown mode": packed(1, "u", "s", 1, "later"),
    "a list for mode": packed(1, "u", "s", 1, ["next"]),
    "yields of the wrong length": packed(1, "u", "s", 1, "next", [[3, 2]]),
    "yields of the wrong type": packed(1, "u", "s", 1, "next", [[3, 2, 1]]),
    "reason too long": packed(9, 1, "a", 0, 0, None, "x" * 4097),
    "spec is a list": packed(0, "u", "s", []),
    "spec without a space": packed(0, "u", "s", {"full_dataset_size": 1}),
    "spec with a bad value": packed(0, "u", "s", {**SPEC.to_wire(), "mode": "best"}),
    "spec with a bad default": packed(0, "u", "s", {**SPEC.to_wire(), "default_hyper_parameters": [{"lr": 5}]}),
    "spec with no size": packed(0, "u", "s", {**SPEC.to_wire(), "image_resize": 5}),
    "space of too many": packed(0, "u", "s", {**SPEC.to_wire(), "search_space": SPACE_OF_TOO_MANY}),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_refused(data: bytes) -> None:
    """Whatever is no message is refused in one short sentence, without any other exception."""
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_refused_at_once(data: bytes) -> None:
    """Nobody can keep the coordinator busy with bad messages: none takes a millisecond, but for a very large space."""

    def elapsed() -> float:
        began = time.perf_counter()
        with pytest.raises(DecodeError):
            decode(data)
        return time.perf_counter() - began

    assert min(elapsed() for _ in range(20)) < (0.2 if data is BAD["space of too many"] else 0.001)


@pytest.mark.parametrize("version", [VERSION + 2, 10**6, 0, -1])
def test_other_versions_are_told_apart(version: int) -> None:
    """A version that cannot be read is told apart from nonsense, so that the remedy can be named."""
    with pytest.raises(WrongVersionError, match=f"protocol {version}"):
        decode(packed(TAGS[Query], "u", 3, 2, version=version))


def test_only_what_is_expected() -> None:
    """A reader says what it expects; anything else is refused, however well formed."""
    assert decode(encode(Query("u", 3, 2)), Report, Query) == Query("u", 3, 2)
    with pytest.raises(DecodeError, match="Query is not expected"):
        decode(encode(Query("u", 3, 2)), Report, Start)


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    """Random bytes raise DecodeError or nothing."""
    with contextlib.suppress(DecodeError):
        decode(data)


@given(message=messages, data=st.data())
def test_damage_is_refused_or_read(message: Any, data: st.DataObject) -> None:
    """A message with some bytes changed raises DecodeError or is another message of the same protocol."""
    damaged = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(damaged))
    except DecodeError:
        return
    assert decode(encode(read)) == read
