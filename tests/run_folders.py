"""Folders as runs leave them, for tests of what reads many."""

import json
from pathlib import Path
from typing import Any

import yaml

_SUBDIR = "${immunax_job:${hydra:job.override_dirname}}"
_GRID = "hydra_plugins.immunax_sweeps.sweepers.Grid"


def estimate(value: float | None, half: float = 0.1) -> dict[str, float | None]:
    """A number with its interval."""
    low, high = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high}


def manifest(defense: str = "tar", seed: int = 0, refusal: float | None = 0.5, **more: Any) -> dict[str, Any]:
    """Of a run that has ended; ``more`` replaces entries, and None takes them away."""
    record = {
        "argv": ["immunax/train.py", f"+defense={defense}"],
        "choices": {"defense": defense, "model": "organism"},
        "config": {
            "seed": seed,
            "defense": {"_target_": f"immunax.defenses.{defense}.X", "alpha": 1.0 if defense == "tar" else 2.0},
            "trainer": {"steps": 4, "seed": seed, "lora": None},
        },
        "started": "2026-01-01T10:00:00+00:00",
        "seed": seed,
        "results": {
            "start model": {"before": {"refusal": estimate(0.9)}, "after": {"refusal": estimate(0.1)}},
            "immunized": {"before": {"refusal": estimate(0.8)}, "after": {"refusal": estimate(refusal)}},
        },
        "ended": "2026-01-01T10:01:30+00:00",
    }
    return {name: value for name, value in {**record, **more}.items() if value is not None}


def leave(folder: Path, record: dict[str, Any] | None = None, **files: Any) -> Path:
    """A run's folder with a manifest and other files: ``metrics=[...]`` lines, ``failure={...}``, ``certificate={...}``."""
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    if record is not None:
        (folder / "manifest.json").write_text(json.dumps(record))
    for name in {"failure", "certificate"} & files.keys():
        (folder / f"{name}.json").write_text(json.dumps(files[name]))
    lines = [json.dumps(dict(zip(("phase", "step", "values"), line, strict=True))) for line in files.get("metrics", ())]
    if lines:
        (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def sweep(folder: Path) -> Path:
    """Two defenses by three seeds: of the second one has diverged, and one was stopped."""
    for defense, base in (("rep_noise", 0.2), ("tar", 0.6)):
        for seed in range(3):
            run, record = folder / f"defense={defense}+seed={seed}", manifest(defense, seed, base + 0.1 * seed)
            unfinished = {**record}
            for name in ("results", "ended"):
                del unfinished[name]
            curve = [("train", step, {"loss": base + 1 / step}) for step in range(1, 5)]
            if (defense, seed) == ("tar", 1):
                line = {"line": "the loss is nan at step 3", "diverged": True, "at": "2026-01-01T10:00:30+00:00"}
                leave(run, unfinished, failure=line, metrics=curve[:2])
            elif (defense, seed) == ("tar", 2):
                leave(run, unfinished, metrics=curve[:3])
            else:
                leave(run, record, metrics=[*curve, ("attack/immunized", 1, {"loss": 3.0})])
    return folder


def write_grid(
    folder: Path, task: Any, sweeper: str = _GRID, subdir: str = _SUBDIR, excluded: Any = ("model", "run")
) -> None:
    """What Hydra writes down as a sweep begins."""
    said = {
        "sweeper": {"_target_": sweeper},
        "sweep": {"subdir": subdir},
        "job": {"config": {"override_dirname": {"exclude_keys": list(excluded)}}},
        "overrides": {"task": task},
    }
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": said}))
