"""Identifiers as keyed hashes."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.datasets.pseudonyms import KEY_VARIABLE, SiteKey, patient_names
from retrieval.errors import SiteKeyError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "mura-search"


def test_a_pseudonym_is_an_hmac_of_kind_and_value() -> None:
    expected = hmac.new(b"k" * 32, b"patient\x00M\xc3\xbcller", hashlib.sha256).hexdigest()
    key = SiteKey(b"k" * 32)
    assert key.pseudonym("patient", "Müller") == expected[:20]
    assert key.pseudonym("study", "Müller") != expected[:20]
    assert SiteKey(b"l" * 32).pseudonym("patient", "Müller") != expected[:20]
    assert key.name != SiteKey(b"l" * 32).name


def test_the_key_is_made_once_for_its_owner_alone(config: Path) -> None:
    assert SiteKey.find() is None
    assert patient_names("7") == ("7",)
    made = SiteKey.find_or_make()
    (file,) = config.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text(encoding="ascii").strip()) == 64
    again = SiteKey.find()
    assert again is not None
    assert again.name == made.name == SiteKey.find_or_make().name
    assert patient_names("7") == ("7", made.pseudonym("patient", "7"))


def test_processes_that_need_a_key_at_once_make_one(config: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: SiteKey.find_or_make().name, range(32)))
    assert len(names) == 1
    assert len(list(config.iterdir())) == 1


def test_a_named_key(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    monkeypatch.setenv(KEY_VARIABLE, str(file))
    with pytest.raises(SiteKeyError, match="does not exist; copy the site key there, or make one"):
        SiteKey.find_or_make()  # a new one in silence would rename every patient
    file.write_text("0A" * 32 + "\n", encoding="ascii")
    assert SiteKey.find_or_make().name == SiteKey(b"\n" * 32).name
    for bad in ("", "0a", "secret " * 20):
        file.write_text(bad, encoding="ascii")
        with pytest.raises(SiteKeyError, match="is not a site key"):
            SiteKey.find()
    file.unlink()
    file.mkdir()
    with pytest.raises(SiteKeyError, match="cannot be read"):
        SiteKey.find()
    assert not config.exists()
