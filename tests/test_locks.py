"""What the locks promise: `make demo` and `make test` share an environment, and the first brings no torch."""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parent.parent / "requirements"


def pins(name: str) -> dict[str, str]:
    """Each package of a lock and what it is pinned to, with its marker and its hashes."""
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return dict(line.split("==", maxsplit=1) for line in lines)


@pytest.mark.parametrize("name", ["cpu.lock", "dev.lock"])
def test_every_package_is_pinned_with_its_hashes_and_no_address(name: str) -> None:
    for package, pinned in pins(name).items():
        assert re.fullmatch(r"[a-z0-9-]+", package)
        assert re.fullmatch(r"\S+ (; [^#/]+)?( +--hash=sha256:[0-9a-f]{64})+", pinned), package


def test_both_locks_pin_the_same_versions() -> None:
    everything = {package: pinned.split()[0] for package, pinned in pins("dev.lock").items()}
    assert {package: pinned.split()[0] for package, pinned in pins("cpu.lock").items()}.items() <= everything.items()


def test_the_everyday_install_has_no_torch() -> None:
    cpu, dev = pins("cpu.lock"), pins("dev.lock")
    assert {"faiss-cpu", "onnxruntime", "hatchling", "editables"} <= set(cpu)
    assert "torch" in dev
    assert not {"torch", "pandas", "scikit-learn", "matplotlib", "scipy"} & set(cpu)
