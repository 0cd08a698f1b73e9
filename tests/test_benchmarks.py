import json
import sys
from pathlib import Path

import pytest

from benchmarks import _timing, compare


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
