"""Leaders under more seeds: who drops out, who leads, and whether by more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from sweeps.race import race

Run = Callable[[Sequence[int], int], Sequence[float | None]]


def replay(values: dict[int, list[float | None]], asked: list[tuple[int, ...]]) -> Run:
    def run(numbers: Sequence[int], seed: int) -> list[float | None]:
        asked.append(tuple(numbers))
        return [values[number][seed] for number in numbers]

    return run


def test_who_is_clearly_behind_runs_no_further_and_the_rest_are_ranked_by_their_means() -> None:
    asked: list[tuple[int, ...]] = []
    values: dict[int, list[float | None]] = {3: [0.70, 0.71, 0.69], 5: [0.71, 0.69, 0.705], 8: [0.40, 0.41, 0.40]}
    result = race([3, 5, 8], range(3), True, replay(values, asked))
    assert asked == [(3, 5, 8), (3, 5, 8), (3, 5)]  # one seed tells nothing of chance
    assert result.order == [5, 3, 8]
    assert result.values[8] == [0.40, 0.41]
    assert result.lead == pytest.approx((0.71 + 0.69 + 0.705) / 3 - 0.70)
    assert not result.beyond_noise
    assert "trial 5 leads trial 3 by 0.2, within the noise of " in result.words()


def test_a_lead_beyond_the_noise_is_said_to_be_one() -> None:
    values: dict[int, list[float | None]] = {1: [0.50, 0.51, 0.49], 2: [0.45, 0.46, 0.44]}
    result = race([1, 2], range(3), True, replay(values, []))
    assert result.beyond_noise
    assert result.values[2] == [0.45, 0.46]  # behind after two
    assert result.noise == pytest.approx(math.sqrt((2 * 0.01**2 + 2 * 0.005**2) / 3))
    assert result.error == pytest.approx(2 * result.noise * math.sqrt(1 / 3 + 1 / 2))
    assert result.words() == f"trial 1 leads trial 2 by 4.5, beyond the noise of {100 * result.error:.1f} (3 seeds)"


def test_what_is_better_low_is_ranked_low_first() -> None:
    values: dict[int, list[float | None]] = {1: [0.2, 0.3], 2: [0.1, 0.2]}
    assert race([1, 2], range(2), False, replay(values, [])).order == [2, 1]


def test_a_leader_that_fails_is_out() -> None:
    values: dict[int, list[float | None]] = {1: [0.5, None, 0.9], 2: [0.4, 0.41, 0.4]}
    result = race([1, 2], range(3), True, replay(values, []))
    assert result.order == [2]
    assert math.isnan(result.lead)
    assert result.words() == "trial 2 ran under 3 seeds, alone"
