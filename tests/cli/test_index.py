"""`mura-search index build` and `index info`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index

Run = Callable[..., Result]


def test_build_then_ask(run: Run, table: Path, model: Path, tmp_path: Path, square: Callable[..., Path]) -> None:
    place = tmp_path / "new"
    built = run("index", "build", table, "--index", place, "--model", model)
    assert built.exit_code == 0
    assert built.stdout.startswith("Indexed 6 radiographs of 4 studies, in ")
    assert run(square("query.png", 30), "--index", place).stdout.startswith("NORMAL")


def test_build_to_the_default_place(run: Run, table: Path, model: Path, square: Callable[..., Path]) -> None:
    assert run("index", "build", table, "--model", model).exit_code == 0
    assert run(square("query.png", 30)).exit_code == 0


def test_build_json(run: Run, table: Path, model: Path, tmp_path: Path) -> None:
    report = json.loads(run("index", "build", table, "--index", tmp_path / "new", "--model", model, "--json").stdout)
    assert (report["cases"], report["studies"], report["patients"]) == (6, 4, 4)


def test_an_unreadable_file_is_reported_and_left_out(run: Run, table: Path, model: Path, tmp_path: Path) -> None:
    (table.parent / "s1-2.png").write_bytes(b"")
    result = run("index", "build", table, "--index", tmp_path / "new", "--model", model)
    assert result.exit_code == 0
    assert "Indexed 5 radiographs" in result.stdout
    assert "Not indexed: 1 " in result.stdout
    assert "not indexed: s1-2.png: " in result.stderr


def test_an_index_is_replaced_only_when_asked(run: Run, table: Path, model: Path, place: Path) -> None:
    refused = run("index", "build", table, "--index", place, "--model", model)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert run("index", "build", table, "--index", place, "--model", model, "--replace").exit_code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,kind\na.png,normal\n", "label"),
        ("path,label\ns1-1.png,broken\n", "broken"),
        ("path,label\nnowhere.png,normal\n", "nowhere.png"),
    ],
)
def test_a_bad_case_table_is_one_line(run: Run, table: Path, tmp_path: Path, content: str, says: str) -> None:
    table.write_text(content, encoding="utf-8")
    result = run("index", "build", table, "--index", tmp_path / "new")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_info(run: Run, place: Path) -> None:
    content = json.loads(run("index", "info", "--index", place, "--json").stdout)
    assert (content["cases"], content["studies"], content["patients"]) == (6, 4, 4)
    assert content["parts"] == {"finger": 6}
    assert content["labels"] == {"normal": 3, "abnormal": 3}
    assert content["model"]["name"] == "squares"
    assert {"store", "generation", "rules", "collection"} <= set(content)

    text = run("index", "info", "--index", place).stdout
    assert "6 of 4 studies, 4 patients" in text
    assert "normal 3, abnormal 3" in text


def test_info_without_an_index(run: Run, tmp_path: Path) -> None:
    result = run("index", "info", "--index", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no index at {tmp_path / 'none'}")


def test_add_then_remove_then_relabel(run: Run, place: Path, squares: Callable[..., Collection]) -> None:
    new = squares([("eve", "s5", 0, [60]), ("fay", "s6", 1, [205])], "new")
    file = new.root / "cases.csv"
    rows = [f"{case.case},{case.label_name},{case.patient},{case.study}" for case in new.cases]
    file.write_text("\n".join(["path,label,patient,study", *rows]) + "\n", encoding="utf-8")

    assert run("index", "add", file, "--index", place).stdout.startswith("Added 2 radiographs in ")
    again = run("index", "add", file, "--index", place)
    assert again.exit_code == 0
    assert "Already in the index, byte for byte: 2, such as s5-1.png, indexed as s5-1.png." in again.stdout
    report = json.loads(run("index", "add", file, "--index", place, "--json").stdout)
    assert (report["added"], len(report["known"])) == (0, 2)

    assert run("index", "remove", "--patient", "eve", "--study", "s1", "--index", place).stdout == (
        "Removed of study s1: 2 radiographs.\nRemoved of patient eve: 1 radiograph.\n"
    )
    assert run("index", "relabel", "s6", "normal", "--index", place).stdout == (
        "Study s6 is normal. Changed: 1 radiograph.\n"
    )
    assert run("index", "verify", "--index", place).stdout.startswith("Whole: 5 radiographs")
    assert json.loads(run("index", "compact", "--index", place, "--json").stdout)["bytes"] >= 0
    content = json.loads(run("index", "info", "--index", place, "--json").stdout)
    assert content["labels"] == {"normal": 2, "abnormal": 3}
    actions = ["add", "add", "remove", "remove", "relabel", "compact"]
    assert [entry["action"] for entry in content["history"]] == actions
    shown = run("index", "info", "--index", place).stdout
    assert "last change  compact, " in shown
    assert "search       exact (faiss-flat)" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["remove"], 2, "say what to remove"),
        (["remove", "--patient", "nobody"], 1, "holds none of these"),
        (["relabel", "s1", "broken"], 2, "normal or abnormal"),
        (["relabel", "nowhere", "normal"], 1, "the index holds no study nowhere"),
    ],
)
def test_a_change_that_cannot_be_made(run: Run, place: Path, arguments: list[str], code: int, says: str) -> None:
    before = (place / "cases.sqlite").read_bytes()
    result = run("index", *arguments, "--index", place)
    assert result.exit_code == code
    assert says in result.stderr
    assert (place / "cases.sqlite").read_bytes() == before


def test_verify_says_what_is_damaged(run: Run, place: Path) -> None:
    file = place / "model" / "head.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = run("index", "verify", "--index", place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_merge(run: Run, place: Path, squares: Callable[..., Collection], model: Path, tmp_path: Path) -> None:
    new = squares([("ann", "s1", 1, [60])], "new")  # of another hospital, which calls somebody else ann
    build_index(new, tmp_path / "other", model=model)
    refused = run("index", "merge", tmp_path / "other", "--index", place)
    assert refused.exit_code == 1
    assert "nothing of " in refused.stderr
    merged = run("index", "merge", tmp_path / "other", "--index", place, "--prefix", "north/")
    assert merged.stdout == "Added 1 radiograph; already in the index, byte for byte: 0.\n"
    again = run("index", "merge", tmp_path / "other", "--index", place, "--prefix", "north/", "--json")
    assert json.loads(again.stdout)["known"] == [{"case": "s1-1.png", "indexed": "north/s1-1.png"}]
    assert run("index", "verify", "--index", place).stdout.startswith("Whole: 7 radiographs")


def test_shards_and_export(run: Run, place: Path, squares: Callable[..., Collection], tmp_path: Path) -> None:
    made = squares([("ann", "s1", 0, [40, 50]), ("bob", "s2", 1, [200])], "made")
    table = made.root / "cases.csv"
    rows = [f"{case.case},{case.label_name},{case.patient},{case.study}" for case in made.cases]
    table.write_text("\n".join(["path,label,patient,study", *rows]) + "\n", encoding="utf-8")
    shards = [tmp_path / "a", tmp_path / "b"]
    for number, shard in enumerate(shards, start=1):
        built = run("index", "build", table, "--shard", f"{number}/2", "--index", shard)
        assert built.stdout.startswith(f"Shard {number}/2: {number} radiograph")
    assert run("index", "build", table, "--shard", "3/2", "--index", tmp_path / "c").exit_code == 2
    missing = run("index", "merge", shards[0], "--index", tmp_path / "joined")
    assert (missing.exit_code, "shard 2 of 2 is missing" in missing.stderr) == (1, True)
    for order in ([shards[0], place], [place, shards[0]]):
        mixed = run("index", "merge", *order, "--index", tmp_path / "joined")
        assert (mixed.exit_code, mixed.stdout) == (1, "")
        assert f"{shards[0]} is a shard and {place} is not" in mixed.stderr
    assert run("index", "merge", *shards, "--prefix", "a/", "--index", tmp_path / "joined").exit_code == 2
    for option in (["--replace"], ["--recall", "0.9"], ["--store", "milvus", "--uri", "a.db"]):
        assert run("index", "merge", place, *option, "--index", tmp_path / "joined").exit_code == 2
    assert not (tmp_path / "joined").exists()
    assert run("index", "merge", *shards, "--index", tmp_path / "joined").stdout.startswith(
        "Indexed 3 radiographs of 2"
    )
    told = json.loads(run("index", "export", tmp_path / "all.parquet", "--index", tmp_path / "joined", "--json").stdout)
    assert told["cases"] == 3
    assert (tmp_path / "all.parquet").stat().st_size > 500
