"""Whether the best trial of a search is better than the next ones, or was lucky: the leaders under more seeds.

A race in the sense of Maron and Moore (Hoeffding races, NeurIPS 1993): all leaders run under one more seed at a time,
and those that are clearly behind drop out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

NUM_LEADERS = 4
CLEAR = 2.0  # standard errors of a difference


@dataclass(frozen=True)
class Result:
    """Where a race ended.

    Attributes:
        values: the objective of each leader, by its number, under each seed that it ran; best mean first among those
            that ran all.
        noise: standard deviation of the objective over seeds, pooled over the leaders; nan with one seed.
    """

    values: Mapping[int, Sequence[float]]
    noise: float

    @property
    def order(self) -> list[int]:
        """The leaders, best first; those that dropped out earlier come later."""
        return list(self.values)

    @property
    def lead(self) -> float:
        """By how much the mean of the first is better than that of the second; nan for one leader."""
        first, *others = (fmean(values) for values in self.values.values())
        return abs(first - others[0]) if others else math.nan

    @property
    def error(self) -> float:
        """Twice the standard error of that difference: a lead beyond it is not chance."""
        counts = [len(values) for values in self.values.values()][:2]
        return CLEAR * self.noise * math.sqrt(sum(1 / count for count in counts))

    @property
    def beyond_noise(self) -> bool:
        """Whether the lead is."""
        return self.lead > self.error

    def words(self, unit: float = 100.0) -> str:
        """`trial 11 leads trial 6 by 0.9, beyond the noise of 0.5 (3 seeds)`, in COCO points."""
        first, *others = self.order
        seeds = len(self.values[first])
        if not others:
            return f"trial {first} ran under {seeds} seeds, alone"
        lead, error = unit * self.lead, unit * self.error
        verdict = "beyond" if self.beyond_noise else "within"
        return (
            f"trial {first} leads trial {others[0]} by {lead:.1f}, {verdict} the noise of {error:.1f} ({seeds} seeds)"
        )


def race(
    leaders: Sequence[int],
    seeds: Sequence[int],
    maximise: bool,
    run: Callable[[Sequence[int], int], Sequence[float | None]],
) -> Result:
    """Run the leaders under one seed after the other; a leader clearly behind the best runs under no further one.

    Args:
        leaders: numbers of trials.
        run: the objective of each of some leaders under a seed; None of one that failed, which then drops out.
    """
    values: dict[int, list[float]] = {number: [] for number in leaders}
    running = list(leaders)
    for seed in seeds:
        for number, value in zip(list(running), run(running, seed), strict=True):
            if value is None:
                running.remove(number)
                values[number] = []
            else:
                values[number].append(value)
        running = _not_behind(values, running, maximise) if running else []
    values, sign = {number: own for number, own in values.items() if own}, -1 if maximise else 1
    order = sorted(values, key=lambda number: (-len(values[number]), sign * fmean(values[number])))
    return Result({number: values[number] for number in order}, _pooled(values.values()))


def _not_behind(values: Mapping[int, Sequence[float]], running: Sequence[int], maximise: bool) -> list[int]:
    noise = _pooled(values.values())
    if math.isnan(noise):
        return list(running)
    means = {number: fmean(values[number]) for number in running}
    best = (max if maximise else min)(means.values())
    error = CLEAR * noise * math.sqrt(2 / len(values[running[0]]))
    return [number for number in running if abs(means[number] - best) <= error]


def _pooled(values: Collection[Sequence[float]]) -> float:
    """Standard deviation inside the groups, pooled over them."""
    squares = sum((value - fmean(group)) ** 2 for group in values for value in group)
    freedom = sum(len(group) - 1 for group in values)
    return math.sqrt(squares / freedom) if freedom else math.nan
