"""Pseudonyms and the key behind them."""

from __future__ import annotations

import hashlib
import hmac
import stat

import pytest

from medharden.data import load_pseudonym_key, pseudonym
from medharden.data.pseudonyms import key_id
from medharden.errors import DataError


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDHARDEN_PSEUDONYM_KEY", raising=False)
    monkeypatch.delenv("MEDHARDEN_PSEUDONYM_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_pseudonym_is_a_keyed_hash_with_the_kind_inside():
    key = b"k" * 32
    expected = hmac.new(key, b"case:a/1.png", hashlib.sha256).hexdigest()[:16]
    assert pseudonym(key, "case", "a/1.png") == expected
    assert pseudonym(key, "patient", "a/1.png") != expected
    assert pseudonym(b"j" * 32, "case", "a/1.png") != expected


def test_names_that_are_not_valid_text_still_get_a_pseudonym():
    assert len(pseudonym(b"k" * 32, "case", "bad\udcff.png")) == 16


def test_first_use_makes_a_secret_that_only_its_owner_reads(tmp_path):
    key = load_pseudonym_key()
    path = tmp_path / "config" / "medharden" / "pseudonym.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) == 32
    assert bytes.fromhex(path.read_text()) == key
    assert load_pseudonym_key() == key
    assert [p.name for p in path.parent.iterdir()] == ["pseudonym.key"]


def test_a_named_file_comes_before_the_environment_and_both_before_the_users_own(monkeypatch, tmp_path):
    (tmp_path / "a.key").write_text("the key in file a\n")
    (tmp_path / "b.key").write_text("the key in file b\n")
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY_FILE", str(tmp_path / "b.key"))
    assert load_pseudonym_key() == b"the key in file b"
    assert load_pseudonym_key(tmp_path / "a.key") == b"the key in file a"
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", "ab" * 16)
    assert load_pseudonym_key(tmp_path / "a.key") == b"the key in file a"
    assert load_pseudonym_key() == bytes.fromhex("ab" * 16)
    assert not (tmp_path / "config").exists()


def test_short_missing_and_unreadable_keys_are_refused_without_showing_them(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", "tooshort")
    with pytest.raises(DataError, match="holds 8 bytes") as caught:
        load_pseudonym_key()
    assert "tooshort" not in str(caught.value)
    monkeypatch.delenv("MEDHARDEN_PSEUDONYM_KEY")
    with pytest.raises(DataError, match="can't be read"):
        load_pseudonym_key(tmp_path / "none.key")
    (tmp_path / "binary.key").write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match="UnicodeDecodeError"):
        load_pseudonym_key(tmp_path / "binary.key")


def test_key_id_names_the_key_without_being_a_pseudonym():
    key = b"k" * 32
    assert key_id(key) == hmac.new(key, b"medharden key id", hashlib.sha256).hexdigest()[:12]
