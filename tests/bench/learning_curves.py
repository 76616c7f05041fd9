"""Learning curves of real trials of `erd_digits.yaml`, and a simulator of such trials that is fitted to them.

`record` trains configurations drawn by a Sobol sequence from the sweep's own space (trial 0 of it is the preset), each
for the file's epochs, scored on the tune split after every epoch; `curves.json` holds what it found. `Simulator` is a
Gaussian process (anisotropic Matern 5/2 and noise, scikit-learn) over the parameters on their own scales, one for each
epoch's AP; what it calls the truth is the mean of the last one. A simulated curve is each epoch's mean and, for what
the parameters do not explain, the residual of a recorded trial, drawn by the configuration itself: the same
configuration has the same curve.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.distributions import LogUniform, Scalar
from sweeps import work
from sweeps.spec import CONFIGS, SweepSpec, load_spec

CURVES = Path(__file__).with_name("curves.json")
SPEC = CONFIGS / "erd_digits.yaml"


@dataclass(frozen=True)
class Curve:
    """A trial: its parameters by flat name, and AP of all classes after each epoch of the increment."""

    point: Mapping[str, Scalar]
    ap: list[float]


def record(trials: int, folder: Path) -> list[Curve]:
    """Train `trials` configurations, as many at once as there are cores."""
    import optuna

    from sweeps.samplers import optuna_distribution

    spec = replace(load_spec(SPEC), storage=folder, store=folder / "store")
    splits = work.prepared(spec)
    study = optuna.create_study(sampler=optuna.samplers.QMCSampler(seed=0, scramble=True))
    ranges = {name: optuna_distribution(distribution) for name, distribution in spec.space.items()}
    points: list[dict[str, Scalar]] = [spec.first_points()[0]]
    while len(points) < trials:
        trial = study.ask(ranges)
        study.tell(trial, 0.0)
        points.append(trial.params)
    runtime = work.runtime(spec, splits, report_at=tuple(range(1, spec.max_progress)))
    configs = [work.configured(spec, splits, spec.method, {**spec.all_defaults(), **point}) for point in points]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        curves = []
        for number, ap in enumerate(pool.imap(_trained, [(config, runtime) for config in configs])):
            curves.append(Curve(points[number], ap))
            print(f"trial {number + 1} of {trials}: {', '.join(f'{100 * value:.1f}' for value in ap)}", flush=True)
            CURVES.write_text(json.dumps([vars(curve) for curve in curves], indent=1))
    return curves


def _trained(given: Any) -> list[float]:
    from trainables.trial import run_trial

    events: list[dict[str, Any]] = []
    run_trial(*given, events.append)
    metrics = [event["metrics"] for event in events if event["progress"]]
    return [float(row.get("ap_all", row.get("ap_all_mid", math.nan))) for row in metrics]


def recorded() -> list[Curve]:
    """The curves that `record` left."""
    if not CURVES.exists():
        raise SystemExit("no trials are recorded yet: python -m tests.bench search --record 32")
    return [Curve(**one) for one in json.loads(CURVES.read_text())]


class Simulator:
    """Trials as the recorded ones: `curve` is what a trial reports, `truth` its last AP without noise."""

    def __init__(self, spec: SweepSpec, curves: list[Curve]) -> None:
        self._space = spec.space
        self._ap = np.array([curve.ap for curve in curves])
        x = np.array([self._scaled(curve.point) for curve in curves])
        self._models = [_process().fit(x, ap) for ap in self._ap.T]
        self._residuals = self._ap - np.stack([model.predict(x) for model in self._models], axis=1)
        self.optimum = self._best()

    def curve(self, point: Mapping[str, Scalar], seed: int) -> list[float]:
        """AP after each epoch; the same for the same point and seed."""
        draw = int(hashlib.sha256(json.dumps([sorted(point.items()), seed]).encode()).hexdigest(), 16)
        residual = self._residuals[draw % len(self._residuals)]
        return [max(0.0, float(value)) for value in self._means(point) + residual]

    def truth(self, point: Mapping[str, Scalar]) -> float:
        """The last AP that the parameters explain."""
        return float(self._means(point)[-1])

    def explained(self) -> list[float]:
        """By epoch, the share of the variance that the parameters explain of trials left out (five folds)."""
        from sklearn.model_selection import cross_val_predict

        x = self._models[0].X_train_
        predicted = [cross_val_predict(_process(), x, ap, cv=5) for ap in self._ap.T]
        return [1 - float(((a - p) ** 2).mean() / a.var()) for a, p in zip(self._ap.T, predicted, strict=True)]

    def _means(self, point: Mapping[str, Scalar]) -> Any:
        x = np.array([self._scaled(point)])
        return np.array([model.predict(x)[0] for model in self._models])

    def _scaled(self, point: Mapping[str, Scalar]) -> list[float]:
        """Each parameter from 0 to 1 on its own scale."""
        scaled = []
        for name, kind in self._space.items():
            low, high, value = float(kind.low), float(kind.high), float(point[name])
            if isinstance(kind, LogUniform):
                low, high, value = math.log(low), math.log(high), math.log(value)
            scaled.append((value - low) / (high - low))
        return scaled

    def _best(self) -> float:
        """The best truth: of many points of the space, and from the best of them uphill."""
        from scipy.optimize import minimize
        from scipy.stats import qmc

        points = qmc.Sobol(len(self._space), seed=0).random_base2(12)
        values = self._models[-1].predict(points)
        starts = points[np.argsort(values)[-8:]]
        bounds = [(0.0, 1.0)] * len(self._space)
        ends = [minimize(lambda x: -self._models[-1].predict(x[None])[0], start, bounds=bounds) for start in starts]
        return max(float(-end.fun) for end in ends)


def _process() -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    size = len(load_spec(SPEC).space)
    shape = ConstantKernel(1.0, (1e-2, 1e2)) * Matern([0.5] * size, (0.05, 20.0), nu=2.5)
    return GaussianProcessRegressor(
        shape + WhiteKernel(0.05, (1e-4, 1.0)), normalize_y=True, n_restarts_optimizer=3, random_state=0
    )
