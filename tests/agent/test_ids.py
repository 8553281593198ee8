"""Ids sort by time and are what RFC 9562 calls version 7; checked with the standard library's own parser."""

import time
import uuid

from agent.ids import new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    for _ in range(200):
        parsed = uuid.UUID(new_id())
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


def test_the_first_48_bits_are_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    stamp = uuid.UUID(new_id()).int >> 80
    assert before <= stamp <= time.time_ns() // 1_000_000


def test_later_ids_sort_after_earlier_ones_and_none_comes_twice() -> None:
    made = []
    for _ in range(20):
        made.append(new_id())
        time.sleep(0.002)
    assert made == sorted(made)
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_an_id_can_be_an_id_of_the_wire() -> None:
    made = new_id()
    assert str(uuid.UUID(made)) == made
    assert len(made) <= 96
