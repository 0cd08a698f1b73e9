"""`mura-search index build` and `index info`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from tests.pictures import grey_square

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
        "Removed 2 radiographs of study s1.\nRemoved 1 radiograph of patient eve.\n"
    )
    assert run("index", "relabel", "s6", "normal", "--index", place).stdout == (
        "Study s6 is normal: 1 radiograph changed.\n"
    )
    assert run("index", "verify", "--index", place).stdout.startswith("Intact: 5 radiographs")
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
    assert run("index", "verify", "--index", place).stdout.startswith("Intact: 7 radiographs")


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


def test_list_and_show(run: Run, place: Path) -> None:
    listed = run("index", "list", "--label", "abnormal", "--patient", "dee", "--index", place)
    assert [line.rstrip() for line in listed.stdout.splitlines()[1:]] == [
        "s4-1.png    abnormal  finger  view 1  s4     dee",
        "s4-2.png    abnormal  finger  view 2  s4     dee",
    ]
    assert listed.stderr == "2 radiographs\n"
    content = json.loads(run("index", "list", "--part", "finger", "--index", place, "--json").stdout)
    assert len(content["cases"]) == 6
    assert content["cases"][0]["label"] == "normal"
    text = run("index", "show", "s1", "dee", "--index", place).stdout
    assert text.count("patient      dee") == 2
    assert text.count("study        s1") == 2
    record = json.loads(run("index", "show", "s2-1.png", "--index", place, "--json").stdout)
    assert [case["case"] for case in record["cases"]] == ["s2-1.png"]
    assert record["quarantined"] == []
    assert run("index", "list", "--label", "broken", "--index", place).exit_code == 2
    nobody = run("index", "show", "nobody", "--index", place)
    assert (nobody.exit_code, nobody.stderr) == (1, "error: the index holds no radiograph, study or patient nobody\n")


def test_unreadable_files_are_shown_and_removed(run: Run, table: Path, model: Path, tmp_path: Path) -> None:
    (table.parent / "s1-2.png").write_bytes(b"")
    run("index", "build", table, "--index", tmp_path / "new", "--model", model)
    assert "not indexed: s1-2.png: " in run("index", "show", "ann", "--index", tmp_path / "new").stdout
    assert run("index", "remove", "--dry-run", "--patient", "ann", "--index", tmp_path / "new").stdout == (
        "Would remove 2 radiographs of patient ann.\n"
    )


def test_a_dry_run_removes_nothing(run: Run, place: Path) -> None:
    before = (place / "cases.sqlite").read_bytes()
    result = run("index", "remove", "--dry-run", "--patient", "ann", "--study", "nothing", "--index", place, "--json")
    assert json.loads(result.stdout)["removed"] == [
        {"study": "nothing", "removed": 0},
        {"patient": "ann", "removed": 2},
    ]
    assert (place / "cases.sqlite").read_bytes() == before


def test_a_removal_says_what_becomes_of_unfinished_builds(
    run: Run, place: Path, table: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retrieval.indexing.build.learn_rules", interrupt)
    assert run("index", "build", table, "--index", place, "--model", model, "--replace").exit_code == 130
    named = run("index", "verify", "--index", place)
    assert named.exit_code == 0
    assert f"{place / '.partial'} is an unfinished build" in named.stderr
    removed = run("index", "remove", "--patient", "ann", "--index", place)
    assert f"the unfinished build {place / '.partial'} is removed too" in removed.stderr
    assert not (place / ".partial").exists()


def test_corrections(run: Run, place: Path, table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text().replace("s2-1.png,normal", "s2-1.png,abnormal"))
    added = run("index", "add", table, "--index", place)
    assert "differs: s2-1.png: label is normal in the index, abnormal here\n" in added.stderr
    assert "Whose records differ from the index: 1." in added.stdout
    assert added.exit_code == 0
    updated = run("index", "update", table, "--index", place)
    assert updated.stdout == "Updated 1 radiograph; as in the index already: 5.\n"
    report = json.loads(run("index", "update", table, "--index", place, "--json").stdout)
    assert (report["schema"], report["updated"], report["same"]) == ("mura-search/update/1", 0, 6)
    (table.parent / "alone.csv").write_text("path,label,study,patient\ns2-1.png,normal,s2,bob\n")
    alone = run("index", "add", table.parent / "alone.csv", "--index", place)
    assert (alone.exit_code, alone.stderr.splitlines()[-1]) == (1, "error: no radiograph could be added")
    (tmp_path / "empty").mkdir()
    build_index_of = tmp_path / "empty" / "other.csv"
    build_index_of.write_text(f"path,label\n{table},normal\n")
    refused = run("index", "update", build_index_of, "--index", place)
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (1, "error: no radiograph could be updated")
    assert "the index does not hold it" in refused.stderr


def test_export_and_import(run: Run, place: Path, model: Path, tmp_path: Path) -> None:
    assert run("index", "export", tmp_path / "all.txt", "--index", place).exit_code == 2
    assert run("index", "export", tmp_path / "all.csv", "--index", place).stdout.startswith("Wrote 6 radiographs to ")
    assert run("index", "export", tmp_path / "all.parquet", "--index", place).exit_code == 0
    made = run("index", "import", tmp_path / "all.parquet", "--index", tmp_path / "copy", "--model", model)
    assert made.stdout.startswith("Indexed 6 radiographs of 4 studies")
    assert run("index", "verify", "--index", tmp_path / "copy").stdout.startswith("Intact: 6 radiographs")


def test_identifiers_of_dicom_headers_are_known(
    run: Run, write_dicom: Callable[..., Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a query knows them: hashed with the site key."""
    pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    monkeypatch.setenv("MURA_SEARCH_SITE_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_text("ab" * 32)
    rows = ["study,label"]
    for number in range(4):
        study = f"1.2.3.{number}"
        pixels = grey_square(40 + 40 * number)
        write_dicom(
            f"archive/{number}.dcm",
            pixels,
            PatientID=f"ZQ{number}",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.8",
            SOPInstanceUID=f"{study}.9",
        )
        rows.append(f"{study},{('normal', 'abnormal')[number // 2]}")
    (tmp_path / "archive" / "labels.csv").write_text("\n".join(rows) + "\n")
    place = tmp_path / "new"
    built = run("index", "build", tmp_path / "archive", "--index", place, "--model", model)
    assert built.exit_code == 0, built.stderr
    assert run("index", "list", "--patient", "ZQ2", "--index", place).stderr == "1 radiograph\n"
    assert "label        abnormal" in run("index", "show", "1.2.3.2", "--index", place).stdout
    assert run("index", "relabel", "1.2.3.2", "normal", "--index", place).stdout == (
        "Study 1.2.3.2 is normal: 1 radiograph changed.\n"
    )
    for option, name in (("--patient", "ZQ0"), ("--study", "1.2.3.1")):
        assert "Would remove" in run("index", "remove", "--dry-run", option, name, "--index", place).stdout
        assert run("index", "remove", option, name, "--index", place).stdout.startswith("Removed 1 radiograph of ")
    assert json.loads(run("index", "info", "--index", place, "--json").stdout)["cases"] == 2
    (tmp_path / "key").write_text("cd" * 32)
    for arguments in (["remove", "--patient", "ZQ2"], ["relabel", "1.2.3.2", "normal"]):
        refused = run("index", *arguments, "--index", place)
        assert refused.exit_code == 1
        assert "hashed with a site key that is not here" in refused.stderr
