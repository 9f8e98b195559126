"""One question to one nameserver: whatever comes back, and from whomever, is an answer or an OSError, within the time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import dns

NAME = "lab.mobula.test"
QUESTION = b"\x03lab\x06mobula\x04test\0" + struct.pack(">HH", 1, 1)
TO_QUESTION = b"\xc0\x0c"
Reply = Callable[[bytes, tuple[str, int]], list[bytes]]


def record(address: str, ttl_s: int = 5, kind: int = 1, owner: bytes = TO_QUESTION, of: int = 1) -> bytes:
    data = socket.inet_aton(address)
    return owner + struct.pack(">HHIH", kind, of, ttl_s, len(data)) + data


def answer(*records: bytes, number: bytes = b"\0\7", flags: int = 0x8580, count: int | None = None) -> bytes:
    counted = len(records) if count is None else count
    return number + struct.pack(">HHHHH", flags, 1, counted, 0, 0) + QUESTION + b"".join(records)


@contextlib.contextmanager
def nameserver(reply: Reply) -> Iterator[tuple[int, list[bytes]]]:
    """Answers each question with what `reply` makes of it; its port, and what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.1", 0))
        channel.settimeout(0.02)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    question, client = channel.recvfrom(4096)
                    asked.append(question)
                    for one in reply(question, client):
                        channel.sendto(one, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield channel.getsockname()[1], asked
        finally:
            ended.set()
            thread.join()


def ask(reply: Reply, *, timeout_s: float = 5.0) -> tuple[set[str], int]:
    with nameserver(reply) as (port, _):
        return dns.ask("127.0.0.1", NAME, timeout_s=timeout_s, port=port)


def test_it_asks_for_a_records_by_the_name_and_a_number_that_nobody_guesses() -> None:
    with nameserver(lambda asked, _: [answer(record("10.77.1.11"), number=asked[:2])]) as (port, asked):
        for _ in range(8):
            assert dns.ask("127.0.0.1", NAME, timeout_s=5.0, port=port) == ({"10.77.1.11"}, 5)
    assert {question[2:] for question in asked} == {struct.pack(">HHHHH", 0x100, 1, 0, 0, 0) + QUESTION}
    assert len({question[:2] for question in asked}) > 1


def test_an_answer_to_another_question_is_not_heard() -> None:
    def reply(asked: bytes, _client: object) -> list[bytes]:
        other = bytes([asked[0] ^ 1, asked[1]])
        return [b"", b"\0", answer(record("6.6.6.6"), number=other), answer(record("10.77.1.11"), number=asked[:2])]

    assert ask(reply)[0] == {"10.77.1.11"}


def test_wrong_answers_for_ever_end_with_the_time() -> None:
    def reply(asked: bytes, _client: object) -> list[bytes]:
        return [answer(record("6.6.6.6"), number=bytes([asked[0] ^ 1, asked[1]]))] * 50

    with pytest.raises(TimeoutError):
        ask(reply, timeout_s=0.1)


def test_silence_is_an_oserror_and_so_is_nobody() -> None:
    with pytest.raises(TimeoutError):
        ask(lambda *_: [], timeout_s=0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.1", 0))
        port = channel.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        dns.ask("127.0.0.1", NAME, timeout_s=5.0, port=port)


def test_what_another_address_says_is_not_heard() -> None:
    """Nobody knows the question's number; somebody guesses it, and is first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:

        def reply(asked: bytes, client: tuple[str, int]) -> list[bytes]:
            other.sendto(answer(record("6.6.6.6"), number=asked[:2]), client)
            return [answer(record("10.77.1.11"), number=asked[:2])]

        with nameserver(reply) as (port, _):
            assert dns.ask("127.0.0.1", NAME, timeout_s=5.0, port=port)[0] == {"10.77.1.11"}


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ((), (set(), 0)),
        ((record("10.0.0.1", 9), record("10.0.0.2", 4)), ({"10.0.0.1", "10.0.0.2"}, 4)),
        ((record("10.0.0.1", owner=QUESTION[:-4]),), ({"10.0.0.1"}, 5)),
        ((record("10.0.0.1", owner=b"\x03www" + TO_QUESTION),), ({"10.0.0.1"}, 5)),
        ((record("10.0.0.1", kind=5, ttl_s=1), record("10.0.0.2")), ({"10.0.0.2"}, 5)),
        ((record("10.0.0.1", kind=28),), (set(), 0)),
        ((record("10.0.0.1", of=3),), (set(), 0)),
        ((TO_QUESTION + struct.pack(">HHIH", 1, 1, 5, 16) + b"x" * 16, record("10.0.0.2", 7)), ({"10.0.0.2"}, 7)),
        ((TO_QUESTION + struct.pack(">HHIH", 1, 1, 5, 0), record("10.0.0.2", 7)), ({"10.0.0.2"}, 7)),
        ((record("10.0.0.1", owner=b"\xc0\xff"),), ({"10.0.0.1"}, 5)),  # a pointer out of the answer: not followed
    ],
)
def test_names_short_and_whole_and_records_that_nobody_asked_for(
    records: tuple[bytes, ...], found: tuple[set[str], int]
) -> None:
    assert dns.addresses(answer(*records)) == found


def test_a_name_that_points_to_itself_ends() -> None:
    loop = b"\xc0" + bytes([len(answer())])
    assert dns.addresses(answer(record("10.0.0.1", owner=loop))) == ({"10.0.0.1"}, 5)


def test_no_such_name_has_no_addresses_and_who_cannot_tell_is_no_answer() -> None:
    assert dns.addresses(answer(flags=0x8583)) == (set(), 0)
    codes = (1, 2, 5, 15)
    told = iter(codes)
    with nameserver(lambda asked, _: [answer(number=asked[:2], flags=0x8580 | next(told))]) as (port, _):
        for code in codes:
            with pytest.raises(OSError, match=rf"ask 127.0.0.1 for {NAME}: it can't tell \(code {code}\)"):
                dns.ask("127.0.0.1", NAME, timeout_s=5.0, port=port)


def test_the_question_itself_is_no_answer() -> None:
    with pytest.raises(OSError, match="it sent a question for an answer"):
        ask(lambda asked, _: [asked])


def test_an_answer_that_is_cut_off_anywhere_is_an_oserror() -> None:
    whole = answer(record("10.0.0.1"), record("10.0.0.2"))

    cuts = iter(range(2, len(whole)))
    with nameserver(lambda asked, _: [asked[:2] + whole[2 : next(cuts)]]) as (port, _):
        for _ in range(2, len(whole)):
            with pytest.raises(OSError, match="its answer is cut off"):
                dns.ask("127.0.0.1", NAME, timeout_s=5.0, port=port)


def test_counts_that_lie_end_with_the_answer() -> None:
    with pytest.raises(IndexError):
        dns.addresses(answer(record("10.0.0.1"), count=0xFFFF))
    with pytest.raises(IndexError):
        dns.addresses(b"\0\7" + struct.pack(">HHHHH", 0x8580, 0xFFFF, 1, 0, 0) + QUESTION)


WHOLE = answer(record("10.0.0.1"), record("10.0.0.2", kind=5), record("10.0.0.3", owner=b"\x01x" + TO_QUESTION))


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_an_error_that_is_known(noise: bytes) -> None:
    with contextlib.suppress(ValueError, IndexError, struct.error):
        dns.addresses(noise)


@given(st.lists(st.tuples(st.integers(2, len(WHOLE) - 1), st.integers(0, 255)), max_size=6), st.integers(2, len(WHOLE)))
def test_an_answer_with_wrong_bytes_is_too(wrong: list[tuple[int, int]], length: int) -> None:
    broken = bytearray(WHOLE)
    for at, byte in wrong:
        broken[at] = byte
    with contextlib.suppress(ValueError, IndexError, struct.error):
        dns.addresses(bytes(broken[:length]))


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".test", "x" * 300])
def test_what_is_no_name_is_not_asked(name: str) -> None:
    with pytest.raises(OSError, match="it is no name of DNS"):
        dns.ask("127.0.0.1", name)
