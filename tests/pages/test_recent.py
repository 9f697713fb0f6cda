"""A bounded store that threads share."""

from concurrent.futures import ThreadPoolExecutor

from pages.common.recent import Recent


def test_the_value_not_asked_for_longest_goes_first() -> None:
    kept: Recent[int] = Recent(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert [kept.get(key) for key in "abc"] == [1, None, 3]


def test_a_value_put_again_takes_the_place_of_the_earlier_one() -> None:
    kept: Recent[int] = Recent(2)
    kept.put("a", 1)
    kept.put("a", 2)
    assert len(kept) == 1 and kept.get("a") == 2


def test_threads_that_put_and_ask_at_once_never_pass_the_bound() -> None:
    kept: Recent[int] = Recent(3)

    def use(number: int) -> int:
        kept.put(number % 7, number)
        kept.get((number + 1) % 7)
        return len(kept)

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(use, range(2000))) <= 3
