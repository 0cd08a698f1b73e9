"""An answer as a terminal shows it."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from cli.render_answer import bar, print_answer
from retrieval.answer import (
    Answer,
    ClassifierAnswer,
    Familiarity,
    IndexSource,
    ModelSource,
    Query,
    Seconds,
    SimilarCase,
    ViewAnswer,
    VoteAnswer,
)
from retrieval.notices import Code, Notice

ANSWER = Answer(
    query=Query(files=("pa.png", "lateral.png"), views=2, excluded_patients=()),
    classifier=ClassifierAnswer(probability=0.83, abnormal=True, threshold=0.5),
    knn=VoteAnswer(probability=0.76, abnormal=True, threshold=0.48, k=15),
    agreement=True,
    familiarity=Familiarity(similarity=0.91, limit=0.62, familiar=True),
    views=(ViewAnswer("pa.png", 0.9, 0.8, 0.93), ViewAnswer("lateral.png", 0.76, 0.72, 0.91)),
    cases=tuple(
        SimilarCase(
            rank=rank,
            similarity=1 - rank / 100,
            weight=0.25 / rank,
            label=label,
            study=f"XR_FINGER/patient0001{rank}/study1",
            patient=f"patient0001{rank}",
            part="finger",
            view=view,
            case=f"train/XR_FINGER/patient0001{rank}/study1/image1.png",
            path=f"/data/MURA-v1.1/train/XR_FINGER/patient0001{rank}/study1_positive/image1.png",
        )
        for rank, label, view in [(1, "abnormal", "pa"), (2, "normal", "lateral")]
    ),
    notices=(),
    model=ModelSource("lite", "0123456789abcdef", synthetic=False),
    index=IndexSource("/data/index", cases=5106, studies=1935, synthetic=False),
    seconds=Seconds(load=0.1, encode=0.05, search=0.001, total=0.153),
)


def shown(answer: Answer, width: int = 80, encoding: str = "utf-8", colour: bool = False) -> list[str]:
    stream = io.BytesIO()
    file = io.TextIOWrapper(stream, encoding=encoding)
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
    )
    print_answer(answer, console)
    file.flush()
    return stream.getvalue().decode(encoding).splitlines()


def test_a_borderline_figure_is_called_so_below_its_verdict() -> None:
    answer = replace(
        ANSWER,
        classifier=replace(ANSWER.classifier, borderline=True),
        knn=replace(ANSWER.knn, borderline=False),
        familiarity=replace(ANSWER.familiarity, borderline=True),
    )
    lines = [line.split() for line in shown(answer)]
    assert lines[3] == ["borderline"]
    assert lines[4][:4] == ["vote", "of", "15", "studies"]
    assert lines[6] == ["borderline"]
    assert sum(line == ["borderline"] for line in lines) == 2
    assert all(len(line) <= 80 for line in shown(answer)[2:7])


def test_the_verdict_comes_first_with_what_it_rests_on() -> None:
    lines = shown(ANSWER)
    assert lines[0] == "ABNORMAL: classifier and vote agree"
    assert lines[2].split() == ["classifier", "0.83", "abnormal", "█" * 10 + "│" + "█" * 7 + "···", "threshold", "0.50"]
    assert lines[3].split()[:6] == ["vote", "of", "15", "studies", "0.76", "abnormal"]
    assert lines[4].split() == ["nearest", "study", "0.910", "near", "limit", "0.620"]


def test_views_cases_and_files() -> None:
    lines = [line.rstrip() for line in shown(ANSWER)]
    assert [line.split() for line in lines if line.startswith(("pa.png", "lateral.png"))] == [
        ["pa.png", "0.90", "0.80", "0.930"],
        ["lateral.png", "0.76", "0.72", "0.910"],
    ]
    assert [line.split() for line in lines if "study1" in line and "image" not in line] == [
        ["1", "0.990", "25%", "abnormal", "XR_FINGER/patient00011/study1", "finger", "pa"],
        ["2", "0.980", "12%", "normal", "XR_FINGER/patient00012/study1", "finger", "lateral"],
    ]
    assert f"1  {ANSWER.cases[0].path}  (missing)" in lines  # in one piece, so that it can be copied


def test_it_fits_80_columns_but_for_paths() -> None:
    assert max(len(line) for line in shown(ANSWER) if "/data/" not in line) <= 80


def test_model_index_and_claim_close_it() -> None:
    *_, sources, claim = shown(ANSWER, width=160)
    assert claim == "Not a medical device: research and teaching only."
    assert sources == "Model lite (01234567); index /data/index of 5,106 radiographs, 1,935 studies; 0.15 s."


def test_an_unfamiliar_query_is_called_so_before_anything_else() -> None:
    why = ("nothing indexed is like it", "it looks inverted: black bones on white")
    lines = shown(replace(ANSWER, familiarity=Familiarity(0.41, 0.62, familiar=False, reasons=why)), width=120)
    assert lines[0].startswith("UNFAMILIAR: nothing indexed is like it; it looks inverted: black bones on white.")
    assert lines[1] == "ABNORMAL: classifier and vote agree"


def test_disagreement() -> None:
    answer = replace(ANSWER, knn=VoteAnswer(0.2, abnormal=False, threshold=0.5, k=1), agreement=False)
    lines = shown(answer)
    assert lines[0] == "UNDECIDED: the classifier says abnormal, the vote says normal"
    assert lines[3].startswith("vote of 1 study ")


def test_the_vote_is_named_by_all_studies_that_voted_in_any_view() -> None:
    answer = replace(ANSWER, knn=replace(ANSWER.knn, k=15, studies=27))
    assert shown(answer)[3].startswith("vote of 27 studies ")


def test_nothing_could_vote() -> None:
    answer = replace(
        ANSWER,
        knn=VoteAnswer(None, abnormal=None, threshold=0.5, k=0),
        agreement=None,
        familiarity=Familiarity(None, 0.62, familiar=None),
        cases=(),
        notices=(Notice(Code.NO_VOTE, detail={"chosen": ""}),),
    )
    text = "\n".join(shown(answer, width=160))
    assert text.startswith("ABNORMAL: by the classifier alone, nothing could vote\n")
    assert "No study of the index fits what was asked for." in text
    assert "Note: nothing could vote: no study of another patient is indexed." in text


def test_a_patient_left_out_is_named_once() -> None:
    query = replace(ANSWER.query, excluded_patients=("patient00011", "patient00012"))
    text = "\n".join(shown(replace(ANSWER, query=query, notices=(left_out("patient00011"),), cases=()), width=160))
    assert text.count("patient00011") == text.count("patient00012") == 1
    query = replace(ANSWER.query, excluded_patients=("1",))
    text = "\n".join(shown(replace(ANSWER, query=query, notices=(left_out("12"),), cases=()), width=160))
    assert "the studies of 1 are left out" in text  # which no warning about 12 says


def left_out(patient: str) -> Notice:
    return Notice(Code.PATIENT_LEFT_OUT, detail={"patient": patient, "prefix": "north/"})


def test_names_cannot_steer_the_terminal_or_the_markup() -> None:
    case = replace(ANSWER.cases[0], study="[red]\x1b[2Jstudy", view="\x07")
    text = "\n".join(shown(replace(ANSWER, cases=(case,)), colour=True))
    assert "[red]\ufffd[2Jstudy" in text
    assert "\x07" not in text


def test_colour_and_word_say_the_same() -> None:
    red = "\x1b[1;31m"
    assert any(f"{red}abnormal" in line for line in shown(ANSWER, colour=True))
    assert not any("\x1b" in line for line in shown(ANSWER))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert any("##########|#######..." in line for line in shown(ANSWER, encoding="ascii"))


@pytest.mark.parametrize(
    ("probability", "threshold", "expected"),
    [
        (0.0, 0.5, ".........." + "|" + ".........."),
        (1.0, 1.0, "####################" + "|"),
        (0.25, 0.0, "|" + "#####..............."),
        (None, 0.5, ""),
    ],
)
def test_bar(probability: float | None, threshold: float, expected: str) -> None:
    assert bar(probability, threshold, "#.|") == expected


def test_what_nobody_names_has_no_column() -> None:
    cases = tuple(replace(case, view="") for case in ANSWER.cases)
    heading = next(line for line in shown(replace(ANSWER, cases=cases)) if "weight" in line)
    assert heading.split() == ["similarity", "weight", "label", "study", "part"]


def test_a_doubt_about_a_picture_comes_before_the_verdict() -> None:
    lines = shown(replace(ANSWER, notices=(Notice(Code.SYNTHETIC), Notice(Code.DAMAGED, "q.jpg"))))
    assert lines[0].startswith("Note: q.jpg: has damaged data")
    assert sum("q.jpg: has damaged data" in line for line in lines) == 1
    assert any("synthetic" in line for line in lines[5:])
