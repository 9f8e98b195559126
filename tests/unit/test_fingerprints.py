from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.fingerprints import has_fingerprint, md5_fingerprint, normal_fingerprint, sha256_fingerprint


@given(st.binary())
def test_a_key_has_its_fingerprints_however_they_are_written(blob: bytes) -> None:
    md5, sha256 = md5_fingerprint(blob), sha256_fingerprint(blob)
    for text in (md5, f"MD5:{md5}", md5.upper(), md5.replace(":", ""), sha256, f" {sha256}= "):
        wanted = normal_fingerprint(text)
        assert wanted in {md5, sha256}
        assert has_fingerprint(blob, wanted)
        assert not has_fingerprint(blob + b"x", wanted)


@pytest.mark.parametrize("text", ["", "~/.ssh/id_rsa", "a" * 31, "SHA256:short", "SHA256:" + "!" * 43, "00:" * 16])
def test_what_is_no_fingerprint(text: str) -> None:
    assert normal_fingerprint(text) is None
