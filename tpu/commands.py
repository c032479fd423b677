"""What each command of the launcher does."""

import argparse
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace

from immunax.runtime.errors import UserError
from immunax.runtime.exits import EXIT_INTERRUPTED
from tpu import engines, job, manifests, names, package, prices, queued, source, sweeps
from tpu.approval import approved
from tpu.calls import exported, told
from tpu.hosts import Hosts
from tpu.job import Job
from tpu.manifests import Cluster
from tpu.mistakes import OutsideError
from tpu.names import positive
from tpu.patience import Patience
from tpu.queued import ABSENT, ANY_JOB, Found, Request
from tpu.slices import Shape, of_type
from tpu.tending import Tending, alone

_WEEK = "7d"


def plan(options: argparse.Namespace) -> int:
    """Tells whether a command fits, how long it takes and what it costs."""
    given = job.read(options.command_words)
    shape = job.shape_of(given, options.type_)
    approved(options, given, shape, options.capacity)
    return 0


def run(options: argparse.Namespace) -> int:
    """Has a slice, runs a command on it to its end, and gives it back."""
    given = job.read(options.command_words)
    job.check_outputs(given)
    request, bucket = _request(options, job.shape_of(given, options.type_)), names.bucket(options.bucket)
    variables = {"IMMUNAX_CACHE": f"{bucket}/cache", "IMMUNAX_LOGS": f"{bucket}/logs/{request.name}"}
    variables |= dict(map(names.variable, options.env))
    price = approved(options, given, request.shape, request.capacity)
    with alone(request):
        sent = source.uploaded(options.calls, bucket, options.dirty)
        tending = _tending(options, request, f"{_what(request)}, ${price.hour:,.2f} an hour", _digest(given.argv))
        hosts = _hosts(options, request)
        status = tending.run(hosts, sent, bucket, given.argv, exported(variables))
        told(f"the command ended with {status}")
        # Who has stopped it may want to look at its machines.
        if not options.keep and status != EXIT_INTERRUPTED:
            tending.deleted()
    return status


def create(options: argparse.Namespace) -> int:
    """Asks for a slice and waits until it is there."""
    if options.type_ is None:
        raise UserError("which slice? Give --type, such as --type v5litepod-16.")
    given = Job("", ())
    request = _request(options, job.shape_of(given, options.type_))
    price = prices.of(request.shape, request.slices, request.zone, request.capacity, options.price)
    with alone(request):
        _tending(options, request, f"{_what(request)}, ${price.hour:,.2f} an hour", ANY_JOB).had()
    return 0


def status(options: argparse.Namespace) -> int:
    """Tells how a slice, and the command on its machines, stands."""
    request, found = _there(options)
    message = found.message and f" ({found.message})"
    type_ = "" if found.type is None else f", {found.type}"
    print(f"{request.name}: {found.state.lower().replace('_', ' ')}{message}{type_}")
    if found.state == queued.ACTIVE:
        _hosts(options, request).ask("state")
    return 0


def logs(options: argparse.Namespace) -> int:
    """Prints the log of a slice's command until it ends."""
    request, _ = _there(options)
    ended = _hosts(options, request).follow(None, 0).status
    if ended is None:
        raise OutsideError(f"{request.name}: the connection to its first machine was cut, or nothing ran there.")
    return ended


def stop(options: argparse.Namespace) -> int:
    """Has a slice's command save and end; the slice stays."""
    _hosts(options, _there(options)[0]).ask("stop")
    return 0


def delete(options: argparse.Namespace) -> int:
    """Gives a slice back."""
    request = _named(options)
    options.standing.may(request.name, request.name, request.deletion)
    if queued.describe(options.calls, request).state == ABSENT:
        told(f"{request.name} is not there")
    else:
        queued.delete(options.calls, request)
        told(f"{request.name} is deleted")
    options.standing.gone(request.name)
    return 0


def jobset(options: argparse.Namespace) -> int:
    """Prints a command as a JobSet, or hands it to kubectl."""
    given, name = job.read(options.command_words), names.name(options.name)
    job.check_outputs(given)
    shape = job.shape_of(given, options.type_)
    approved(options, given, shape, _kind(options))
    run_ = given.value("run") or name
    return _applied(options, manifests.jobset(name, given, shape, options.slices, _cluster(options, given), name, run_))


def kueue(options: argparse.Namespace) -> int:
    """Prints the queue for a sweep's JobSets, or hands it to kubectl."""
    given = job.read(options.command_words) if options.command_words else Job("", ())
    shape = job.shape_of(given, options.type_)
    options.image = options.image or "none"
    text = manifests.kueue(
        names.name(options.name),
        shape,
        options.slices * positive("--at-once", options.at_once),
        _cluster(options, given),
    )
    return _applied(options, text)


def xpk(options: argparse.Namespace) -> int:
    """Runs a command as a workload of xpk."""
    given, name = job.read(options.command_words), names.name(options.name)
    cluster = _cluster(options, given)
    job.check_outputs(given)
    shape = job.shape_of(given, options.type_)
    # xpk writes values between quotes as they are.
    odd = next((key for key, value in cluster.variables.items() if '"' in value or "\\" in value), None)
    if odd is not None:
        raise UserError(f"--env {odd}: xpk cannot hand on a value with a quotation mark or a backslash; use jobset.")
    approved(options, given, shape, _kind(options))
    argv = [
        *("xpk", "workload", "create", f"--workload={name}", f"--cluster={names.name(options.cluster)}"),
        *([f"--zone={names.zone(options.zone)}"] if options.zone else []),
        *(f"--tpu-type={shape.type}", f"--num-slices={options.slices}", f"--docker-image={cluster.image}"),
        *(f"--max-restarts={cluster.restarts}", f"--termination-grace-period-seconds={cluster.grace}"),
        *(f"--env={each}" for each in exported(cluster.variables)),
        # xpk runs it in a shell that waits for it: only exec lets its signal reach the command itself.
        f"--command=exec {shlex.join(given.argv)}",
    ]
    print(options.calls.must(argv), end="")
    if not options.dry_run:
        deletion = ["xpk", "workload", "delete", f"--workload={name}", f"--cluster={options.cluster}"]
        told(f"{name} is on the cluster; delete it with: {shlex.join(deletion)}")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Hands every run of a sweep to an engine, or prints them."""
    given, name = job.read(options.command_words), names.name(options.name)
    engines.check(options)
    on_slices = options.engine in engines.ON_SLICES
    if on_slices:
        job.check_outputs(given)
    if job.parts_of(given) > 1:
        raise UserError(
            "mesh.part: an engine gives each run a slice of its own; leave it out, or have one slice run the sweep."
        )
    # Hosts of one's own are of any shape.
    shape = job.shape_of(given, options.type_) if on_slices or not options.unchecked else None
    runs = package.runs(package.python(options.python), given)
    each = sweeps.commands(given, runs)
    if shape is not None:
        approved(options, given, shape, _kind(options), runs, options.at_once)
    if shape is not None and options.engine == "kueue":
        status = _applied(options, sweeps.jobsets(name, each, shape, options.slices, _cluster(options, given)))
        _say_how_to_watch(options, given, runs)
        return status
    if options.engine == "lines" or not (options.apply or options.dry_run):
        print(sweeps.lines(each), end="")
        return 0
    if options.dry_run:
        print(sweeps.lines(each), end="")
    if shape is None or options.engine == "slurm":
        said = engines.to_slurm(options.calls, name, each, options.at_once, options.lines)
    else:
        variables = _variables(options, given)
        said = engines.to_ray(options.calls, name, each, options.at_once, shape, options.address, variables)
    print(said, end="")
    _say_how_to_watch(options, given, runs)
    return 0


def _say_how_to_watch(options: argparse.Namespace, given: Job, runs: Sequence[package.Run]) -> None:
    if options.apply and not options.dry_run:
        # Unlike a sweep of -m they leave nothing that says how many there will be.
        folder = f"{(given.value('outputs') or 'outputs').rstrip('/')}/{sweeps.name_of(runs)}"
        told(f"once the first has begun: python -m immunax.results {shlex.quote(folder)} --watch runs={len(runs)}")


def _request(options: argparse.Namespace, shape: Shape) -> Request:
    capacity = options.capacity
    if capacity == "flex-start" and not shape.generation.flex:
        raise UserError(f"--flex-start: {shape.type} is not had so; v5e and v6e are.")
    if options.run_duration and capacity != "flex-start":
        raise UserError("--run-duration belongs to --flex-start.")
    if options.reservation and capacity != "reserved":
        raise UserError("--reservation belongs to --reserved.")
    return Request(
        names.name(options.name),
        shape,
        names.zone(options.zone),
        options.project,
        positive("--slices", options.slices),
        capacity,
        (options.run_duration or _WEEK) if capacity == "flex-start" else None,
        options.reservation,
        options.service_account,
        options.internal_ips,
    )


def _named(options: argparse.Namespace) -> Request:
    """A request as far as the command line alone tells."""
    return Request(names.name(options.name), of_type("v5litepod-4"), names.zone(options.zone), options.project)


def _there(options: argparse.Namespace) -> tuple[Request, Found]:
    """A request as the service knows it, of whatever shape."""
    request = _named(options)
    found = queued.describe(options.calls, request)
    shape = request.shape if found.type is None else of_type(found.type)
    return replace(request, shape=shape, slices=found.slices), found


def _tending(options: argparse.Namespace, request: Request, what: str, label: str) -> Tending:
    patience = Patience(options.poll, positive("--tries", options.tries), options.sleep)
    return Tending(options.calls, request, label, options.standing, what, patience)


def _hosts(options: argparse.Namespace, request: Request) -> Hosts:
    return Hosts(options.calls, request, ("--tunnel-through-iap",) if options.iap else ())


def _cluster(options: argparse.Namespace, given: Job) -> Cluster:
    if options.image is None:
        raise UserError("no image: build tpu/Dockerfile, push it, and give --image NAME.")
    return Cluster(
        options.image,
        names.name(options.queue or options.name),
        names.name(options.namespace),
        options.service_account,
        not options.on_demand,
        options.restarts,
        options.grace,
        _variables(options, given),
    )


def _variables(options: argparse.Namespace, given: Job) -> dict[str, str]:
    return job.cache(given) | dict(map(names.variable, options.env))


def _applied(options: argparse.Namespace, text: str) -> int:
    if options.apply or options.dry_run:
        argv = ["kubectl", *([f"--context={options.context}"] if options.context else []), "apply", "-f", "-"]
        if options.dry_run:
            print(text, end="---\n" if not text.endswith("\n") else "")
        print(options.calls.must(argv, given=text), end="")
    else:
        print(text, end="")
    return 0


def _what(request: Request) -> str:
    many = f"{request.slices} slices" if request.slices > 1 else "a slice"
    chips = request.slices * request.shape.chips
    return f"{request.name}, {many} of {request.shape.type} ({chips} chips) in {request.zone}, {request.capacity}"


def _kind(options: argparse.Namespace) -> str:
    return "on-demand" if options.on_demand else "spot"


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256(shlex.join(words).encode()).hexdigest()[:16]
