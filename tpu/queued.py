"""Queued resources of Cloud TPU: asked for, described, deleted. One is a slice, or several that compute together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tpu import hints
from tpu.calls import Calls
from tpu.mistakes import OutsideError
from tpu.slices import Shape

# The released form lacks --autocheckpoint-enabled and --provisioning-model.
_COMMAND = ("gcloud", "alpha", "compute", "tpus", "queued-resources")
ACTIVE, FAILED, SUSPENDED, ABSENT = "ACTIVE", "FAILED", "SUSPENDED", "ABSENT"
ANY_JOB = "any"
"""The label of a slice that was had for whichever command comes."""
_CAPACITY = {
    "on-demand": (),
    "spot": ("--spot",),
    "reserved": ("--reserved",),
    "flex-start": ("--provisioning-model=flex-start",),
}
_LABEL = "immunax-job"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      name: of the queued resource, and of its node or nodes.
      shape: of each slice.
      zone: where.
      project: None for the one that gcloud is set to.
      slices: how many.
      capacity: one of ``prices.CAPACITIES``.
      run_duration: at most, of flex-start.
      reservation: whose chips to take, of capacity ``reserved``.
      service_account: that its machines act as; None for the project's default one.
      internal: whether its machines have no address outside.
    """

    name: str
    shape: Shape
    zone: str
    project: str | None = None
    slices: int = 1
    capacity: str = "on-demand"
    run_duration: str | None = None
    reservation: str | None = None
    service_account: str | None = None
    internal: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        """Flags that every call on it has."""
        return (f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else []))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of its TPU nodes, a slice each."""
        return (self.name,) if self.slices == 1 else tuple(f"{self.name}-{index}" for index in range(self.slices))

    @property
    def deletion(self) -> list[str]:
        """The call that gives it back."""
        return [*_COMMAND, "delete", self.name, *self.place, "--force", "--quiet"]


@dataclass(frozen=True)
class Found:
    """What the service says of a queued resource.

    Attributes:
      state: such as ``ACTIVE``, or ``ABSENT``.
      message: why it failed.
      made: when it was asked for; tells it from another one of the same name.
      type: of accelerator; None where the service does not say.
      job: the label that the launcher gave it.
      slices: how many nodes it is.
    """

    state: str
    message: str = ""
    made: str = ""
    type: str | None = None
    job: str | None = None
    slices: int = 1


def create(calls: Calls, request: Request, job: str) -> None:
    """Asks for a slice; returns once the request stands in the queue.

    Args:
      calls: programs outside.
      request: what to ask for.
      job: a label by which it is known again.

    Raises:
      OutsideError: it was refused.
    """
    many = (f"--node-count={request.slices}", f"--node-prefix={request.name}")
    argv = [
        *(*_COMMAND, "create", request.name, *request.place),
        *((f"--node-id={request.name}",) if request.slices == 1 else many),
        f"--accelerator-type={request.shape.type}",
        f"--runtime-version={request.shape.generation.runtime}",
        *_CAPACITY[request.capacity],
        *([f"--max-run-duration={request.run_duration}"] if request.run_duration else []),
        *([f"--reservation={request.reservation}"] if request.reservation else []),
        *([f"--service-account={request.service_account}"] if request.service_account else []),
        *(["--internal-ips"] if request.internal else []),
        *(["--autocheckpoint-enabled"] if request.shape.generation.autocheckpoint else []),
        f"--labels={_LABEL}={job}",
        "--quiet",
    ]
    done = calls.ask(argv)
    if done.status:
        raise hints.outside(f"{request.name} was not created", done.said, request)


def describe(calls: Calls, request: Request, supposed: str = ACTIVE) -> Found:
    """How it stands.

    Args:
      calls: programs outside.
      request: what was asked for.
      supposed: its state where nothing is called.

    Raises:
      OutsideError: the service does not answer.
    """
    answer = json.dumps({"state": {"state": supposed}}) if supposed != ABSENT else ""
    done = calls.ask([*_COMMAND, "describe", request.name, *request.place, "--format=json", "--quiet"], answer)
    if calls.dry and supposed == ABSENT:
        return Found(ABSENT)
    if done.status and "NOT_FOUND" in done.err:
        return Found(ABSENT)
    if done.status:
        raise hints.outside(f"{request.name} could not be described", done.said, request)
    try:
        return _found(json.loads(done.out))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutsideError(f"{request.name}: gcloud described it in a form that is not known ({done.said}).") from error


def _found(answer: Mapping) -> Found:
    specified = (answer.get("tpu", {}).get("nodeSpec") or [{}])[0]
    node, many = specified.get("node", {}), specified.get("multisliceParams") or specified.get("multiNodeParams") or {}
    state = answer["state"]
    failure = state.get("failedData", {}).get("error", {}).get("message", "")
    return Found(
        str(state["state"]),
        str(failure),
        str(answer.get("createTime", "")),
        node.get("acceleratorType"),
        node.get("labels", {}).get(_LABEL),
        int(many.get("nodeCount", 1)),
    )


def delete(calls: Calls, request: Request) -> None:
    """Gives it back, its machines with it.

    Args:
      calls: programs outside.
      request: what was asked for.

    Raises:
      OutsideError: it may stand still.
    """
    done = calls.ask(request.deletion)
    if done.status and "NOT_FOUND" not in done.err:
        raise hints.outside(f"{request.name} was not deleted", done.said, request)
