"""How the fit of a train step is shown, and what is kept of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from immunax.data.packing import Tokens, total
from immunax.pod.chips import Chip
from immunax.pod.fit import Fit, roofline, step_seconds
from immunax.runtime import console
from immunax.runtime.slices import slice_sizes

_GIB = 2**30


def to_json(fit: Fit, chip: Chip, devices: Mesh, rows: Mapping[str, Tokens] | None = None) -> dict[str, Any]:
    """All numbers: bytes, FLOPs and seconds; ``None`` where the compiler did not come so far, or it is not known.

    Args:
      fit: of a program.
      chip: that it is for.
      devices: the mesh.
      rows: of :func:`~immunax.outer.row_share.largest`.
    """
    seconds = dict(roofline(fit, chip, devices.size))
    counted = fit.traffic
    return {
        "fits": fit.fits,
        "devices": devices.size,
        "mesh": dict(devices.shape),
        "hbm_bytes": chip.hbm_bytes,
        "memory": vars(fit.memory),
        "flops": fit.flops,
        "recomputed_flops": fit.recomputed,
        "device_flops": counted and counted.flops,
        "device_hbm_traffic": counted and counted.hbm_bytes,
        "device_sent": counted and {f"{kind} {axes}": size for (kind, axes), size in sorted(counted.sent.items())},
        "device_sent_by_axis": counted and counted.by_axis(),
        "device_gathered": counted and dict(counted.gathered),
        "kernel_calls": counted and dict(counted.kernels),
        "real_tokens": rows and {name: each.share for name, each in {**rows, "all": total(rows.values())}.items()},
        "slices": math.prod(slice_sizes(devices).values()),
        "device_sent_over_dcn_by_axis": counted and counted.by_axis_over_dcn(),
        "device_waited": counted and counted.waited,
        "seconds": seconds,
        "step_seconds": step_seconds(fit, chip, devices.size) if counted else None,
        "mfu": fit.flops / devices.size / chip.flops / step_seconds(fit, chip, devices.size) if counted else None,
        "bound": max(seconds, key=lambda part: seconds[part]) if counted else None,
        "refusal": fit.refusal or None,
    }


def show(title: str, fit: Fit, chip: Chip, devices: Mesh, real: Mapping[str, Tokens] | None = None) -> None:
    """Prints the table of one program.

    Args:
      title: of the table.
      fit, chip, devices: as for :func:`to_json`.
      real: its ``rows``.
    """
    memory, counted = fit.memory, fit.traffic
    share = f"{100 * memory.peak / chip.hbm_bytes:.0f}% of {chip.hbm_bytes / _GIB:.0f} GiB"
    rows = [
        ("arguments", _gib(memory.arguments), "weights, optimizer, what the defense carries, batch"),
        ("outputs", _gib(memory.outputs), "in the arguments' memory, which is donated"),
        ("temporaries", _gib(memory.temporaries), ""),
        ("peak", _gib(memory.peak), share if fit.fits else f"does not fit {chip.hbm_bytes / _GIB:.0f} GiB"),
        ("FLOPs", f"{fit.flops / 1e12:.4g} TFLOP", f"of the step on all {devices.size} devices, by its mathematics"),
        ("recomputed", f"{fit.recomputed / 1e12:.4g} TFLOP", "that compute.remat adds"),
    ]
    if real:
        most = f"at most {total(real.values()).share:.1%}"
        rows.append(("real tokens", most, "of those computed, where every example fills its row"))
    if counted is not None:
        seconds = roofline(fit, chip, devices.size)
        bound = max(seconds, key=lambda part: seconds[part])
        step = step_seconds(fit, chip, devices.size)
        share = fit.flops / devices.size / chip.flops / step
        rows += [
            ("FLOPs", f"{counted.flops / 1e12:.4g} TFLOP", "that each device computes"),
            ("HBM traffic", _gib(counted.hbm_bytes), "of each device"),
            *((f"sent over {axes}", _gib(size), _kinds(fit, axes)) for axes, size in sorted(counted.by_axis().items())),
            *(
                (f"sent over {axes}", _gib(size), "to other slices")
                for axes, size in sorted(counted.by_axis_over_dcn().items())
            ),
            *([("gathered", _listed(counted.gathered, _gib), "by dtype")] if counted.gathered else []),
            *([("kernels", _listed(counted.kernels, str), "calls")] if counted.kernels else []),
            *([("collectives over attack", _over_attack(fit), "")] if devices.shape["attack"] > 1 else []),
            *(
                (f"time of {part}", f"{time:.4g} s", "bounds the step" if part == bound else "")
                for part, time in seconds.items()
                if time
            ),
            ("waited for", _gib(counted.waited), "of what is sent, with nothing computed meanwhile"),
            ("step", f"{step:.4g} s", f"at the least; MFU at most {100 * share:.0f}%"),
        ]
    console.table(title, ["", "per device", ""], rows)


def _over_attack(fit: Fit) -> str:
    """Members never speak where the program has no collective along ``attack``; its replica groups prove it."""
    sent = fit.traffic.over("attack") if fit.traffic else {}
    return ", ".join(f"{kind} {_gib(size)}" for (kind, _), size in sorted(sent.items())) or "none"


def _kinds(fit: Fit, axes: str) -> str:
    sent = fit.traffic.sent if fit.traffic else {}
    return _listed({kind: size for (kind, over), size in sent.items() if over == axes}, _gib)


def _listed(amounts: Mapping[str, Any], shown: Callable[[Any], str]) -> str:
    return ", ".join(f"{name} {shown(amount)}" for name, amount in sorted(amounts.items()))


def _gib(size: float | None) -> str:
    if size is None:
        return "unknown"
    unit, name = (2**30, "GiB") if size >= 2**30 / 100 else (2**20, "MiB")
    return f"{size / unit:.3g} {name}"
