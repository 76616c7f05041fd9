"""What MLflow shows of a registered model and of its versions, in Markdown: origin, results and how to use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten

from search_spaces.distributions import Scalar
from sweeps.results import Trial
from sweeps.show import AP_COLUMNS, mean_and_spread
from sweeps.spec import SweepSpec
from trainables.config import TrialConfig
from trainables.datasets import Splits
from trainables.environment import package_versions

MAX_CHARS = 5000  # of a description, in MLflow's databases

_MODEL = """\
Detectors `{detector}` that learnt the classes of `{scenario}` step by step. Each version is a sweep's best
configuration, finally trained; its page says where it comes from. The alias `champion` is the best of them by the
metric in their tag `metric`, on images that no trial has seen.
{use}"""

_VERSION = """\
| | |
| --- | --- |
{facts}
{use}
### On the test split

AP in COCO points; of several seeds the mean and half the range.

| | {columns} |
| --- |{rules}
{rows}"""

_USE = """
### Use

In an environment with Palimpsest, and `MLFLOW_TRACKING_URI` set to this MLflow:

```python
model = mlflow.pyfunc.load_model("{uri}")
model.predict({{"image": [Path("street.jpg").read_bytes()]}})  # or RGB arrays, uint8 (height, width, 3)
```

```
mlflow models serve -m {uri} --env-manager local --port 5001
echo '{{"inputs": ["'$(base64 < street.jpg | tr -d '\\n')'"]}}' |
  curl -H 'Content-Type: application/json' -d @- http://127.0.0.1:5001/invocations
```

For each image, best first: `boxes` (x1, y1, x2, y2 in its pixels), `scores` (0 to 1) and `classes`. The checkpoint
itself is `data/*.pth` in `mlflow.artifacts.download_artifacts("{uri}")`, for `torch.load(path, weights_only=True)`.
"""


def model_page(name: str, scenario: str, detector: str) -> str:
    """Of a registered model."""
    return _MODEL.format(scenario=scenario, detector=detector, use=_USE.format(uri=f"models:/{name}@champion"))


def version_page(
    name: str, version: str, facts: Mapping[str, str], rows: Mapping[str, Mapping[str, Sequence[float]]]
) -> str:
    """Of one of its versions; as many rows of the table as MLflow takes.

    Args:
        facts: see `provenance`.
        rows: metrics by name, a value a seed, of the final runs and of what they are compared with.
    """
    page = _VERSION.format(
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        use=_USE.format(uri=f"models:/{name}/{version}"),
        columns=" | ".join(AP_COLUMNS.values()),
        rules=" --- |" * len(AP_COLUMNS),
        rows="\n".join(f"| {row} | {_cells(scores)} |" for row, scores in rows.items()),
    )
    return page if len(page) <= MAX_CHARS else page[:MAX_CHARS].rpartition("\n")[0]


def provenance(spec: SweepSpec, trial: Trial, config: TrialConfig, splits: Splits) -> dict[str, str]:
    """Where the final training of a trial under `config` comes from."""
    steps = "; then ".join(", ".join(names) for names in config.scenario.steps)
    before = "; ".join(f"until {one.until}: {_told({**one.params, **one.optim})}" for one in config.schedule)
    return {
        "sweep": f"`{spec.name}`, trial {trial.number} (`{trial.trial_id}`)",
        "config_id": f"`{config.config_id}`",
        "scenario": f"`{config.scenario.name}`: {shorten(steps, 1000, placeholder=' ...')}",
        "detector": f"`{config.detector}`",
        "method": f"`{config.method}`: {_told({**config.params, **config.optim})}",
        **({"before, on the clock": shorten(before, 1000, placeholder=" ...")} if before else {}),
        "epochs": f"base step {config.base_epochs}, each increment {config.epochs}, batches of {config.batch_size}",
        "seeds": f"{', '.join(map(str, spec.promotion.seeds))}; of this version {config.seed}",
        **{f"{part} annotations": f"`{getattr(splits, part).digest}`" for part in ("train", "tune", "test")},
        "packages": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    }


def _told(params: Mapping[str, Scalar]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in params.items())


def _cells(scores: Mapping[str, Sequence[float]]) -> str:
    return " | ".join(mean_and_spread(scores.get(metric, ())) for metric in AP_COLUMNS)
