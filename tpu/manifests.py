"""Kubernetes manifests filled in: a JobSet for a run, a queue for a sweep.

Every value goes in as JSON, which is YAML on one line: no quote, colon or brace of a command can change the manifest.
"""

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tpu.job import Job
from tpu.slices import Shape

HERE = Path(__file__).parent
_DAY = 24 * 3600


@dataclass(frozen=True)
class Cluster:
    """Where on GKE jobs run, and how.

    Attributes:
      image: of ``Dockerfile``, by digest or tag.
      queue: the LocalQueue.
      namespace: of all objects.
      service_account: of Kubernetes, with access to the bucket.
      spot: whether machines that can be taken are asked for.
      restarts: of a run, at most.
      grace: seconds between SIGTERM and the end.
      variables: of the container's environment.
    """

    image: str
    queue: str
    namespace: str = "default"
    service_account: str = "default"
    spot: bool = True
    restarts: int = 100
    grace: int = 120
    variables: Mapping[str, str] = field(default_factory=dict)


def selector(shape: Shape, spot: bool) -> dict[str, str]:
    """Labels of the nodes that a slice consists of.

    Args:
      shape: of the slice.
      spot: whether they can be taken.
    """
    labels = {
        "cloud.google.com/gke-tpu-accelerator": shape.generation.gke,
        "cloud.google.com/gke-tpu-topology": shape.topology,
    }
    return labels | ({"cloud.google.com/gke-spot": "true"} if spot else {})


def jobset(name: str, job: Job, shape: Shape, slices: int, cluster: Cluster, sweep: str, run: str) -> str:
    """A run as a JobSet.

    Args:
      name: of the object.
      job: what each pod runs.
      shape: of each slice.
      slices: that compute together.
      cluster: where.
      sweep: a label to find all runs of a sweep by.
      run: the run's folder, to find it by.
    """
    variables = [{"name": key, "value": value} for key, value in sorted(cluster.variables.items())]
    return _filled(
        "jobset.yaml",
        {
            "name": name,
            "namespace": cluster.namespace,
            "queue": cluster.queue,
            "sweep": sweep,
            "run": run,
            "kept_seconds": 7 * _DAY,
            "restarts": cluster.restarts,
            "slices": slices,
            "pods": shape.pods,
            "grace": cluster.grace,
            "service_account": cluster.service_account,
            "selector": selector(shape, cluster.spot),
            "image": cluster.image,
            "arguments": list(job.arguments),
            "env": variables,
            "chips": shape.chips_a_pod,
        },
    )


def kueue(name: str, shape: Shape, at_once: int, cluster: Cluster) -> str:
    """The queue for slices of one shape.

    Args:
      name: of the queues.
      shape: of each slice.
      at_once: slices in use at a time.
      cluster: where.
    """
    flavor = f"{shape.generation.name}-{shape.topology}{'-spot' if cluster.spot else ''}"
    return _filled(
        "kueue.yaml",
        {
            "name": name,
            "namespace": cluster.namespace,
            "flavor": flavor,
            "selector": selector(shape, cluster.spot),
            "quota": at_once * shape.chips,
        },
    )


def _filled(file: str, values: Mapping[str, Any]) -> str:
    text = string.Template((HERE / file).read_text())
    return text.substitute({key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})
