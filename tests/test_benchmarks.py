import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _timing, compare
from benchmarks.tables import filled


def results(file: Path, **samples: list[float]) -> str:
    """A file of `run_all.py` with one benchmark: ratios against 1, of which "memory" is better if lower."""
    _timing.RESULTS["ratios"] = {}
    for name, values in samples.items():
        _timing.ratio(name, values, [1.0] * len(values), lower_is_better=name == "memory")
    file.write_text(json.dumps({"benchmarks": {"encode": {"ratios": _timing.RESULTS["ratios"]}}}))
    return str(file)


@pytest.mark.parametrize(
    ("speed", "memory", "verdicts", "status"),
    [
        ([8.5], [2.0], ["same", "same"], 0),
        ([7.9], [2.0], ["worse", "same"], 1),
        ([9.1], [2.3], ["better", "worse"], 1),
        ([9.1], [1.7], ["better", "better"], 0),
    ],
)
def test_a_ratio_beyond_the_spread_of_the_baseline_is_worse_or_better(
    speed: list[float],
    memory: list[float],
    verdicts: list[str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    baseline = results(tmp_path / "baseline.json", speed=[8.0, 8.5, 9.0], memory=[1.8, 2.0, 2.2])
    new = results(tmp_path / "new.json", speed=speed, memory=memory)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["compare.py", baseline, new])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == verdicts
    assert ended.value.code == status


def test_tables_of_a_page_are_filled_from_the_results() -> None:
    found = {
        "machine": ["a CPU, 2 cores", "numpy 2"],
        "samples": {"ours": {"unit": "ms", "values": [3.0, 1.0, 2.0]}, "memory": {"unit": "MiB", "values": [70.0]}},
        "ratios": {"theirs / ours": {"median": 8.04, "low": 7.5, "high": 9.25, "lower_is_better": False}},
        "notes": ["a note"],
    }
    page = "# A\n\n<!-- bench: search -->\nold\n<!-- end -->\n\n<!-- bench: other -->\nkept\n<!-- end -->\n"
    new = filled(page, {"search": found})
    assert "old" not in new
    assert "| ours | 2 ms | 1 to 3 |\n| memory | 70 MiB |  |\n| **theirs / ours** | **8.04** | 7.5 to 9.25 |" in new
    assert "(a CPU, 2 cores; numpy 2)" in new
    assert "- a note\n" in new
    assert new.endswith("<!-- bench: other -->\nkept\n<!-- end -->\n")
    assert filled(new, {"search": found}) == new


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [script, "--dry-run", "--out", out, "--jobs", "2"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(out.read_text())
    steps = content["benchmarks"]
    assert content["dry_run"]
    assert {name: step.get("error") for name, step in steps.items()} == dict.fromkeys(
        ("faiss", "encode", "train", "folds")
    )
    assert all(all(step["checks"].values()) for step in steps.values())
    assert all(step["checks"] for name, step in steps.items())
    assert len(steps["folds"]["samples"]["kappa of the classifier, a value for each seed"]["values"]) == 1
