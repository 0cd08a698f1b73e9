"""Names from tables and folders that try to steer a terminal, or to be calculated by a spreadsheet."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]
HOSTILE = ["\x1b[31mred\x1b]0;title\x07", "\u202egnp.exe", "=cmd|' /C calc'!A0", "+1", "-2", "@SUM(1)", "\x9b31m"]


@pytest.fixture
def hostile(table: Path) -> Path:
    """A case table with hostile names in its columns: a patient and a study for each name, and an unreadable file."""
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    file = table.with_name("hostile.csv")
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "patient", "study", "part", "view", "split", "lesion"])
        for number, name in enumerate(HOSTILE):
            copy = table.with_name(f"{name.replace('/', '')} {number}.png")
            shutil.copyfile(table.with_name(rows[number % len(rows)]["path"]), copy)
            copy.write_bytes(copy.read_bytes() + bytes([number]))  # other bytes, the same picture
            split = "valid" if number % 2 else "train"
            writer.writerow([copy.name, int(number % 3 == 0), f"{name}p", f"{name}s", name, name, split, name])
        table.with_name("=bad.png").write_text("no picture")
        writer.writerow(["=bad.png", 0, "bad", "bad", "", "", "train", ""])
    return file


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def cells(file: Path) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"))) for cell in row]


@pytest.mark.parametrize("command", ["audit", "evaluate", "worklist"])
def test_terminal_and_csv(run: Run, place: Path, hostile: Path, tmp_path: Path, command: str) -> None:
    file = tmp_path / "out.csv"
    options: list[object] = [] if command == "audit" else ["--index", place]
    subject = hostile.parent if command == "worklist" else hostile
    for extra in ([], ["--json"]):
        result = run(command, subject, *options, "--csv", file, "--excel", *extra)
        assert result.exit_code == 0, result.stderr
        assert is_harmless(result.stdout)
        assert is_harmless(result.stderr)
    json.loads(result.stdout)
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    texts = [cell for cell in cells(file) if not cell.replace(".", "").replace("-", "").isdigit()]
    assert not [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert any(cell.startswith(("'=", "'+", "'-", "'@")) for cell in texts)
