import pytest

from cna_core.models.transfer import Meter, duration_in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (22, "about 20 seconds"),
        (54, "about 55 seconds"),
        (58, "about a minute"),
        (200, "about 3 minutes"),
        (5400, "about 1.5 hours"),
    ],
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_the_time_left_follows_the_speed_of_the_last_seconds() -> None:
    now = 0.0
    said: list[tuple[int, int, str]] = []
    meter = Meter(lambda *told: said.append(told), 100_000_000, "Downloading x", clock=lambda: now)
    for second in range(20):  # 1 MB a second
        now = float(second)
        meter.at(second * 1_000_000)
    assert said[-1] == (19_000_000, 100_000_000, "Downloading x: 19 MB of 100 MB, about a minute left")
    for second in range(20, 30):  # 5 MB a second
        now = float(second)
        meter.at(19_000_000 + (second - 19) * 5_000_000)
    assert said[-1][2] == "Downloading x: 69 MB of 100 MB, about 5 seconds left"


def test_without_a_total_only_the_bytes_are_said() -> None:
    said: list[str] = []
    Meter(lambda done, total, words: said.append(words), 0, "Downloading x").at(2_500_000_000)
    assert said == ["Downloading x: 2.5 GB"]


def test_no_time_left_is_claimed_at_the_first_look() -> None:
    said: list[str] = []
    Meter(lambda done, total, words: said.append(words), 1000_000_000, "Downloading x").at(0)
    assert said == ["Downloading x: 0 MB of 1.0 GB"]
