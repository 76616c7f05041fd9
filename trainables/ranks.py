"""Several devices for one trial: a process each, the ranks. The first leads a trial; the others follow its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol

from mmengine.dataset import DefaultSampler
from torch import distributed

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def world() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def announce(function: Callable[..., Any], *arguments: Any) -> None:
    """Have those who follow call `function(*arguments)`, as the leader is about to; nothing where it is alone."""
    _tell((function, arguments))


def dismiss() -> None:
    """The leader needs those who follow no more."""
    _tell(None)


def follow() -> None:
    """Call what the leader announces until it dismisses its followers."""
    while (call := _tell(None)) is not None:
        function, arguments = call
        function(*arguments)


def _tell(call: Call | None) -> Call | None:
    """What the leader gives, to everyone."""
    if world()[1] == 1:
        return call
    box = [call]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def of_each(value: Any) -> list[Any]:
    """The value of every rank."""
    count = world()[1]
    values: list[Any] = [value]
    if count > 1:
        values *= count
        distributed.all_gather_object(values, value)
    return values


class WholeSampler(DefaultSampler):
    """mmengine's shuffled order of all items, the same on every rank: `RankShare` takes its part of a batch."""

    def __init__(self, dataset: Sized, seed: int) -> None:
        super().__init__(dataset, shuffle=True, seed=seed)
        self.rank, self.world_size = 0, 1
        self.num_samples = self.total_size = len(dataset)


class Batches(Protocol):
    """A batch sampler."""

    sampler: DefaultSampler

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class RankShare:
    """Of every batch what this rank trains on: together the ranks see the batches that one process would."""

    def __init__(self, batches: Batches) -> None:
        self.sampler, self._batches = batches.sampler, batches
        self._rank, self._count = world()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch[self._rank :: self._count]
