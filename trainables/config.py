"""What determines a trial's numbers (`TrialConfig`), and what does not (`Runtime`): where it runs and who listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from search_spaces.distributions import Scalar
from trainables.catalog import DETECTORS, METHODS
from trainables.datasets.splits import Split, Splits
from trainables.files import digest, file_digest
from trainables.recipes import Recipe
from trainables.scenarios import Scenario

TRAINING_VERSION = 3
"""Counts the changes of this code that change a trial's numbers; stored results of another version are not used."""


@dataclass(frozen=True)
class Segment:
    """Parameters that acted up to `until` on the clock, in place of the configuration's own."""

    until: int
    params: Mapping[str, Scalar]
    optim: Mapping[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One chain of steps, from the base step to the last.

    Attributes:
        data: digest of the training annotations.
        params: every parameter of the method; `optim`: every field of the detector's optim class. Both act from the
            scenario's `first_step` on; the base step keeps the recipe, so that all trials share it.
        schedule: what acted before `params` and `optim`, where a trial's parameters change on its way.
        base_seed: seed of the base step and of joint training; `seed`: of the incremental steps.
        nms: `test_cfg.nms` where it is not the recipe's; only scores depend on it.
        teacher: a detector of the same classes that teaches the only step of a scenario.
        checkpoint: an exported checkpoint, in place of training the only step of a scenario.
        as_base: train the only step of a scenario as a base step, by the detector's recipe alone.
        pretrained: path or URL of backbone weights.
        freeze_base: the backbone keeps those weights in the base step, and in the joint references.
        ema_momentum: of an average of the weights, which then is what is scored and taught from; 0 for none.
        threads: CPU threads of torch; on a CPU they decide in which order sums are taken, and so their last bits.
        device: `cpu` or `cuda`; on `cuda` training runs in mixed precision.
        devices: that train together, each in a process of its own on `batch_size` images an iteration.
        response_dtype: `float32` or `float16`: what a teacher's logits are rounded to, from a table or live.
    """

    scenario: Scenario
    data: str
    detector: str
    method: str
    params: Mapping[str, Scalar] = field(default_factory=dict)
    optim: Mapping[str, Scalar] = field(default_factory=dict)
    schedule: tuple[Segment, ...] = ()
    base_epochs: int
    epochs: int
    batch_size: int
    seed: int = 0
    base_seed: int = 0
    pretrained: str | None = None
    freeze_base: bool = False
    ema_momentum: float = 0.0
    threads: int = 1
    device: str = "cpu"
    devices: int = 1
    response_dtype: str = "float32"
    nms: Mapping[str, Scalar] = field(default_factory=dict)
    teacher: TrialConfig | None = None
    checkpoint: str | None = None
    as_base: bool = False

    @property
    def first_step(self) -> int:
        """The first step that `params` and `optim` act on."""
        return 1 if self.as_base else self.scenario.first_step

    @property
    def end(self) -> int:
        """The clock at the end of a trial."""
        return self.progress_at(len(self.scenario.steps) - 1, self.epochs)

    @property
    def recipe(self) -> Recipe:
        """The detector's recipe."""
        return DETECTORS[self.detector].recipe

    @property
    def method_params(self) -> Any:
        """`params` as an object of the method's class."""
        return METHODS[self.method].params(**self.params)

    @property
    def lr_rule(self) -> str:
        """How the learning rate follows the batch from `first_step` on; only some methods say."""
        return str(getattr(self.method_params, "lr_rule", "linear"))

    @property
    def config_id(self) -> str:
        """The hash of everything that determines the trial's numbers."""
        identity = self.step_identity(len(self.scenario.steps) - 1)
        return digest(identity | ({"nms": dict(self.nms)} if self.nms else {}))

    def step_identity(self, step: int) -> dict[str, Any]:
        """What the weights at the end of `step` depend on, and nothing else."""
        spoken = {  # what its words depend on beside its weights
            "version": TRAINING_VERSION,
            "classes": self.scenario.steps[: step + 1],
            "detector": self.detector,
            "recipe": asdict(self.recipe),
            "batch_size": self.batch_size,
            "device": self.device if self.device == "cuda" else [self.device, self.threads],
        }
        if self.checkpoint:
            return spoken | {"checkpoint": _weights_identity(self.checkpoint)}
        shared = spoken | {
            "data": self.data,
            "base": [self.base_epochs, self.base_seed],
            "pretrained": _weights_identity(self.pretrained),
            "ema_momentum": self.ema_momentum,
        }
        if self.freeze_base:
            shared["freeze_base"] = True
        if self.devices > 1:
            shared["devices"] = self.devices
        if step < self.first_step:
            return shared
        *before, last = self.segments(0, self.progress_at(step, self.epochs))
        own: dict[str, Any] = {"method": self.method, "params": dict(last.params), "optim": dict(last.optim)}
        if before:
            own["schedule"] = [asdict(one) for one in before]
        if METHODS[self.method].taught:
            own["response_dtype"] = self.response_dtype
        if self.teacher:
            own["teacher"] = self.teacher.step_identity(0)
        return shared | own | {"epochs": self.epochs, "seed": self.seed}

    def joint(self, step: int) -> TrialConfig:
        """The reference of `step`: all classes seen by then, learnt at once by the recipe of the base step."""
        seen = Scenario(f"{self.scenario.name}: joint", (self.scenario.seen(step),))
        return replace(self, scenario=seen, method="finetune", params={}, optim={}, schedule=(), as_base=True)

    def taught_by(self, step: int) -> tuple[TrialConfig, int] | None:
        """Whose weights at the end of which step teach `step`, if the method is taught."""
        if step:
            return self, step - 1
        return (self.teacher, 0) if self.teacher else None

    def segments(self, first: int, last: int) -> list[Segment]:
        """What acts from `first` to `last` on the clock; equal neighbours are one."""
        found: list[Segment] = []
        begin = first
        for one in (*self.schedule, Segment(last, self.params, self.optim)):
            if (until := min(one.until, last)) > begin:
                if found and (found[-1].params, found[-1].optim) == (one.params, one.optim):
                    found.pop()
                found.append(Segment(until, one.params, one.optim))
                begin = until
        return found

    def progress_at(self, step: int, epoch: int = 0) -> int:
        """Epochs of a trial's own steps done after `epoch` epochs of `step`: the one clock of a sweep."""
        return 0 if step < self.first_step else (step - self.first_step) * self.epochs + epoch


def under_schedule(config: TrialConfig, acted: Sequence[Segment]) -> TrialConfig:
    """`config` with what acted over a whole chain in place of its parameters."""
    *before, last = acted
    return replace(config, params=last.params, optim=last.optim, schedule=tuple(before))


@cache
def _weights_identity(origin: str | None) -> str | None:
    return file_digest(Path(origin)) if origin and Path(origin).is_file() else origin


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how a trial runs; nothing here changes its numbers.

    Attributes:
        splits: annotation files and images.
        store: root of the results that trials share: a folder that all nodes share, or a URL.
        evaluate_on: the split that is scored, `tune` or `test`.
        report_at: values of the clock at which to score inside a step, besides its end.
        workers: loader processes; 0 loads in the trial's own.
        floors: by method, values of its parameters at which all trials that share a table of responses find what they
            need (`search_spaces.params.floor`), empty where there are none; a trial of another method takes its own.
        table_budget_gb: largest table of images, targets or responses to keep; 0 for none.
    """

    splits: Splits
    store: Path | str
    evaluate_on: str = "tune"
    report_at: tuple[int, ...] = ()
    workers: int = 0
    floors: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    table_budget_gb: float = 8.0

    @property
    def scored(self) -> Split:
        """The split that is scored."""
        split: Split = getattr(self.splits, self.evaluate_on)
        return split
