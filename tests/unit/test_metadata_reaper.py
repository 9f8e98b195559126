"""When standbys may say that the leader's host is dead."""

from __future__ import annotations

from mobula.metadata.reaper import DOWN_S, FRESH_S, HANDSHAKE_S, Suspicion

KEY, OTHER_KEY = 7, 8


def test_silence_has_to_last_and_an_answer_ends_it() -> None:
    suspicion = Suspicion()
    assert not suspicion.silent(KEY, 10.0)
    assert suspicion.silent(KEY, 10.0 + DOWN_S - HANDSHAKE_S + 0.01)
    suspicion.clear()
    assert not suspicion.silent(KEY, 20.0)


def test_another_leader_begins_anew() -> None:
    suspicion = Suspicion()
    suspicion.silent(KEY, 10.0)
    assert not suspicion.silent(OTHER_KEY, 11.0)


def test_only_a_fresh_word_about_the_same_key_agrees() -> None:
    suspicion = Suspicion(czxid=KEY)
    said = {"s": b"7 123"}
    suspicion.heard("s", 100, 10.0)
    assert not suspicion.agreed(said, 10.0), "the first look does not say how old it is"
    suspicion.heard("s", 101, 10.1)
    assert suspicion.agreed(said, 10.2)
    assert not suspicion.agreed({"s": b"8 123"}, 10.2)
    assert not suspicion.agreed(said, 10.2 + FRESH_S)
    suspicion.heard("s", 101, 11.0)
    assert not suspicion.agreed(said, 11.0), "the same word, read again"


def test_nobody_else_to_ask_is_no_agreement() -> None:
    assert not Suspicion(czxid=KEY).agreed({}, 1.0)
