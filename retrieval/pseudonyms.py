"""Who is who without names: identifiers as keyed hashes, so that the same patient stays the same patient.

HMAC-SHA-256 (RFC 2104) with a key that the site keeps for itself. Without the key nobody can try out patient numbers,
of which a hospital has few enough for that; with it the same number gives the same hash in every index of the site.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from functools import cached_property
from pathlib import Path

from retrieval.errors import SiteKeyError

__all__ = ["KEY_VARIABLE", "SiteKey", "is_pseudonym", "patient_names"]

KEY_VARIABLE = "MURA_SEARCH_SITE_KEY_FILE"
_DIGITS = 20  # 80 bits: that two of a hundred million studies are alike has odds of 4 in 10^9
_KEY = re.compile(rb"[0-9a-f]{64,}")


class SiteKey:
    """The key of a site. `name` tells it from others without giving it away."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def find(cls) -> "SiteKey | None":
        """The key that is there: of the file that MURA_SEARCH_SITE_KEY_FILE names, else in the user's config folder.

        None where nobody has made one. Raises SiteKeyError where a key is there, or named, and cannot be used.
        """
        named = os.environ.get(KEY_VARIABLE)
        place = Path(named) if named else _usual_place()
        try:
            text = place.read_bytes().strip().lower()
        except FileNotFoundError as error:
            if named:  # made anew in silence, it would give every patient another name
                raise SiteKeyError(
                    f"{place}, which {KEY_VARIABLE} names, does not exist; "
                    f"put the site key there, or make one:  (umask 077; openssl rand -hex 32 > {place})"
                ) from error
            return None
        except OSError as error:
            raise SiteKeyError(f"the site key {place} cannot be read: {error.strerror}") from error
        if not _KEY.fullmatch(text):
            raise SiteKeyError(f"{place} is no site key: 64 hexadecimal digits or more; restore it from a copy")
        return cls(bytes.fromhex(text.decode()[: len(text) // 2 * 2]))

    @classmethod
    def find_or_make(cls) -> "SiteKey":
        """`find`, and where nobody has made a key, make one that its owner alone can read."""
        found = cls.find()
        if found:
            return found
        place = _usual_place()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, fresh = tempfile.mkstemp(prefix=".site-key-", dir=place.parent)  # mode 0600
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(secrets.token_hex(32) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                _link_if_free(Path(fresh), place)
            finally:
                Path(fresh).unlink(missing_ok=True)
        except OSError as error:
            raise SiteKeyError(f"the site key {place} cannot be made: {error.strerror}") from error
        made = cls.find()
        if made is None:
            raise SiteKeyError(f"the site key {place} has gone again; try once more")
        return made

    @cached_property
    def name(self) -> str:
        return self.pseudonym("key", "")

    def pseudonym(self, kind: str, value: str) -> str:
        """The keyed hash of an identifier, 20 hexadecimal digits; the same value of another kind has another one."""
        message = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def is_pseudonym(name: str) -> bool:
    """Whether a name looks like what `SiteKey.pseudonym` gives, and like nobody's."""
    return re.fullmatch(f"[0-9a-f]{{{_DIGITS}}}", name) is not None


def patient_names(identifier: str) -> tuple[str, ...]:
    """The names by which an index may know a patient: as it stands, and hashed where the site has a key."""
    key = SiteKey.find()
    return (identifier, key.pseudonym("patient", identifier)) if key else (identifier,)


def _usual_place() -> Path:
    from platformdirs import user_config_path

    return user_config_path("mura-search") / "site-key"


def _link_if_free(fresh: Path, place: Path) -> None:
    """Give the finished file its name unless another process was quicker; then that one's key is the key."""
    try:
        os.link(fresh, place)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not place.exists():
            fresh.replace(place)
