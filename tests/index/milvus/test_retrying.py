import pytest

from index.milvus.store import retrying

pytest.importorskip("tenacity", reason="the extra milvus is not installed")


class Passing(ConnectionError):
    """An error that pymilvus would mark like this."""

    retriable = True


class Failing:
    """Fails so many times, then gives 7."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self) -> int:
        self.left -= 1
        if self.left >= 0:
            raise Passing(f"{self.left} failures to come")
        return 7


def test_it_waits_longer_and_longer_and_never_twice_the_same(pauses: list[float]) -> None:
    assert retrying(1000)(Failing(9)) == 7
    for number, pause in enumerate(pauses):
        longest = min(5.0, 0.1 * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 9


def test_it_gives_up_in_time(pauses: list[float]) -> None:
    action = Failing(1000)
    with pytest.raises(Passing):
        retrying(20)(action)
    assert 10 < sum(pauses) <= 20
    assert 1000 - action.left == len(pauses) + 1


def test_what_does_not_pass_is_raised_at_once(pauses: list[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        retrying(20)(lambda: 1 // 0)
    assert pauses == []
