"""Pseudonyms: keyed hashes in place of identifiers, so that radiographs of one patient stay together without a name.

The hash is HMAC-SHA-256 (RFC 2104) with a key that the site keeps for itself. With the key the same number gives the
same hash in every index of the site. Without it nobody can find a number by hashing all numbers of a hospital.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
import unicodedata
from functools import cached_property
from pathlib import Path

from retrieval.errors import SiteKeyError

__all__ = [
    "KEY_VARIABLE",
    "SiteKey",
    "indexed_names",
    "is_placeholder",
    "is_pseudonym",
    "normalised",
    "patient_names",
]

KEY_VARIABLE = "MURA_SEARCH_SITE_KEY_FILE"
_DIGITS = 20  # 80 bits: among a hundred million studies two have the same hash with odds of 4 in 10^9
_KEY = re.compile(rb"[0-9a-f]{64,}")
_PLACEHOLDER = re.compile(
    "(anon|anonyme?|anonymi[sz]ed|anonymo?us|pseudonym(ous|i[sz]ed)?|deidentified|empty|missing|no|redacted|removed|deleted|"
    "hidden|blank|unknown|unnamed|undefined|unspecified|not(available|applicable|known|provided|recorded|specified)|"
    "tobedetermined|dummy|test|anonymisi(ert|rt)|pseudonymisiert|(nicht|niet|ikke)?(bekannt|bekend|kjent)|unbekannt|ohne|keine?|"
    "entfällt|inconnue?|nondisponible|anonim(i[sz]ad|izzat)?[oa]|anónim[oa]|anônim[oa]|desconocid[oa]|desconhecid[oa]|"
    "sin(dato|nombre)s?|sconosciut[oa]|ignot[oa]|onbekend|anoniem|geen|ukjent|ukendt|okänd|ingen|tuntematon|nieznan[yae]|brak|"
    "anonimow[ya]|neznám[ýá]|ismeretlen|bilinmiyor|anonim|неизвестн(о|ый|ая)|аноним|άγνωστ(ο|ος|η)|ανώνυμ(ο|ος|η)|"
    "匿名|不明|未知|無名|无名|익명|미상|مجهول|غيرمعروف)"
    "(patient|name|id|patientname|patientid)?|patient(name|id)?(anon|anonym|anonymous|anonymi[sz]ed|unknown|test)?|"
    "na|nan|nat|nil|nobody|nonegiven|none|null|nv|tbd|tba|0*|x{2,}"
)
_SIGN = re.compile(  # -1 and -99, as statistics write it; #DIV/0!, #NAME? and #NV, as spreadsheets do; n/d, k. A.
    r"-(1|9+)(\.0*)?|#[^\W\d_][\w/]*[!?]|#N/?[^\W\d_]|[bns]/[adnr]|[kn]\. ?[adr]\.|н/д", re.IGNORECASE
)


class SiteKey:
    """The key of a site. Its `name` identifies it and does not reveal it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def find(cls) -> "SiteKey | None":
        """The key in the file that MURA_SEARCH_SITE_KEY_FILE names, else in the user's configuration folder.

        None if no key was made yet. Raises SiteKeyError for a file that is named and missing, and for an invalid key.
        """
        named = os.environ.get(KEY_VARIABLE)
        path = Path(named) if named else _default_path()
        try:
            text = path.read_bytes().strip().lower()
        except FileNotFoundError as error:
            if named:  # a new key would give every patient another pseudonym
                raise SiteKeyError(
                    f"{path}, which {KEY_VARIABLE} names, does not exist; "
                    f"copy the site key there, or make one:  (umask 077; openssl rand -hex 32 > {path})"
                ) from error
            return None
        except OSError as error:
            raise SiteKeyError(f"the site key {path} cannot be read: {error.strerror}") from error
        if not _KEY.fullmatch(text):
            raise SiteKeyError(f"{path} is not a site key of 64 or more hexadecimal digits; restore it from a copy")
        return cls(bytes.fromhex(text.decode()[: len(text) // 2 * 2]))

    @classmethod
    def find_or_make(cls) -> "SiteKey":
        """`find`; if no key was made yet, make one that only its owner can read. Raises SiteKeyError."""
        if known := cls.find():
            return known
        path = _default_path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, fresh = tempfile.mkstemp(prefix=".site-key-", dir=path.parent)  # mode 0600
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(secrets.token_hex(32) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                _link_if_free(Path(fresh), path)
            finally:
                Path(fresh).unlink(missing_ok=True)
        except OSError as error:
            raise SiteKeyError(f"the site key {path} cannot be made: {error.strerror}") from error
        if made := cls.find():
            return made
        raise SiteKeyError(f"another program removed the site key {path}; try again")

    @cached_property
    def name(self) -> str:
        return self.pseudonym("key", "")

    def pseudonym(self, kind: str, value: str) -> str:
        """The keyed hash of an identifier, 20 hexadecimal digits. A value has different hashes for different kinds."""
        if kind != "image":  # the name of a file, which may differ from another only in its white space
            value = normalised(value)
        message = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def normalised(identifier: str) -> str:
    r"""An identifier in one form of Unicode (NFC), without invisible characters, and with single spaces.

    >>> normalised(" Doe\u00a0\u200bJane ")
    'Doe Jane'
    """
    if not identifier.isascii():
        composed = unicodedata.normalize("NFC", identifier)
        identifier = "".join(character for character in composed if unicodedata.category(character) != "Cf")
    return " ".join(identifier.replace("\0", " ").split())


def is_placeholder(identifier: str) -> bool:
    """Whether an identifier stands for a missing one, as "ANONYMOUS", "nan", "N/A", "-" and "0" do.

    >>> [is_placeholder(name) for name in ("ANONYMOUS", "#N/A", "000", "Anon-17", "12")]
    [True, True, True, False, False]
    """
    if _SIGN.fullmatch(identifier.strip()):
        return True
    key = "".join(filter(str.isalnum, unicodedata.normalize("NFC", identifier).casefold()))
    return _PLACEHOLDER.fullmatch(key) is not None


def is_pseudonym(name: str) -> bool:
    """Whether a name has the form of a pseudonym."""
    return re.fullmatch(f"[0-9a-f]{{{_DIGITS}}}", name) is not None


def patient_names(identifier: str) -> tuple[str, ...]:
    """The names by which an index may know a patient: the identifier, and its pseudonym if the site has a key.

    A placeholder names nobody.
    """
    return () if is_placeholder(identifier) else indexed_names("patient", identifier)


def indexed_names(kind: str, identifier: str) -> tuple[str, ...]:
    """The names by which an index may know a "patient", a "study" or a "case", whatever the identifier is."""
    names = tuple(dict.fromkeys((identifier, normalised(identifier))))
    key = SiteKey.find()
    return (*names, key.pseudonym("image" if kind == "case" else kind, identifier)) if key else names


def _default_path() -> Path:
    from platformdirs import user_config_path

    return user_config_path("mura-search") / "site-key"


def _link_if_free(fresh: Path, path: Path) -> None:
    """Give the finished file its name, unless another process has made a key meanwhile."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            fresh.replace(path)
