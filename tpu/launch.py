"""``python -m tpu.launch COMMAND``: slices of TPUs, from the request to the bill; see ``tpu/README.md``.

Exit statuses: 0 done; 2 a mistake; 3 does not fit the slice or the budget; 4 something outside failed (gcloud, quota, network);
130 and 143 stopped; 1 a bug; else that of the job. At whatever end a line names what still stands, and how it is deleted.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from immunax.runtime.errors import UserError
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_INTERRUPTED, EXIT_TERMINATED
from tpu import commands, engines, prices
from tpu.calls import Calls, told
from tpu.mistakes import status_of
from tpu.standing import Standing

_STOPS = (signal.SIGTERM, signal.SIGHUP)
_CAPACITY = {"--spot": "spot", "--on-demand": "on-demand", "--reserved": "reserved", "--flex-start": "flex-start"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help says what there is.")


class _StoppedError(BaseException):
    """SIGTERM, or a terminal that is gone."""


def main(argv: Sequence[str] | None = None, sleep: Callable[[float], None] = time.sleep) -> int:
    """The launcher.

    Args:
      argv: its arguments; the process's own by default.
      sleep: waits some seconds.

    Returns:
      The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    standing = Standing()
    before = [signal.signal(number, _stop) for number in _STOPS]
    try:
        options = _parser().parse_args(words[:at])
        options.command_words, options.sleep, options.standing = words[at + 1 :], sleep, standing
        options.calls = Calls(options.dry_run)
        return options.does(options)
    except UserError as mistake:
        say(f"error: {mistake}", error=True)
        return status_of(mistake)
    except KeyboardInterrupt:
        told("interrupted: nothing is deleted, and the same command goes on from there")
        return EXIT_INTERRUPTED
    except _StoppedError:
        told("stopped: nothing is deleted, and the same command goes on from there")
        return EXIT_TERMINATED
    finally:
        standing.tell()
        for number, handler in zip(_STOPS, before, strict=True):
            signal.signal(number, handler)


def _stop(*_: object) -> NoReturn:
    raise _StoppedError


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m tpu.launch", description=__doc__, allow_abbrev=False)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(
        name: str, does: Callable[[argparse.Namespace], int], *groups: Callable, what: str
    ) -> argparse.ArgumentParser:
        one = parsers.add_parser(name, help=what, description=what, allow_abbrev=False)
        for group in groups:
            group(one)
        one.add_argument("--dry-run", action="store_true", help="print the calls, make none")
        one.set_defaults(does=does)
        return one

    add(
        "plan",
        commands.plan,
        _where,
        _shape,
        _asked,
        _checks,
        what="whether a command fits a slice, how long it takes, what it costs",
    )
    run = add(
        "run",
        commands.run,
        _name,
        _place,
        _shape,
        _asked,
        _checks,
        _job,
        what="have a slice, run a command on it to its end, give it back",
    )
    run.add_argument("--keep", action="store_true", help="leave the slice when the command has ended")
    add(
        "create",
        commands.create,
        _name,
        _place,
        _shape,
        _asked,
        _price,
        what="ask for a slice and wait until it is there",
    )
    add("status", commands.status, _name, _place, what="how a slice, and the command on its machines, stands")
    add("logs", commands.logs, _name, _place, _job, what="the log of a slice's command, until it ends")
    add(
        "stop", commands.stop, _name, _place, what="SIGTERM to a slice's command, which saves and ends; the slice stays"
    )
    add("delete", commands.delete, _name, _place, what="give a slice back")
    jobset = add(
        "jobset",
        commands.jobset,
        _name,
        _where,
        _shape,
        _checks,
        _cluster,
        what="a command as a JobSet of GKE, printed",
    )
    kueue = add("kueue", commands.kueue, _name, _shape, _cluster, what="the queue for a sweep's JobSets, printed")
    kueue.add_argument("--at-once", type=int, default=1, metavar="N", help="slices in use at a time")
    xpk = add("xpk", commands.xpk, _name, _where, _shape, _checks, _cluster, what="a command as a workload of xpk")
    xpk.add_argument("--cluster", required=True, help="made by xpk")
    sweep = add(
        "sweep",
        commands.sweep,
        _name,
        _where,
        _shape,
        _checks,
        _cluster,
        what="every run of a command with -m, by an engine",
    )
    sweep.add_argument("--engine", choices=engines.ENGINES, default="lines", help="lines: print a command a run")
    sweep.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="runs side by side, for slurm and ray; by default as many as these have room for",
    )
    sweep.add_argument("--lines", type=Path, metavar="FILE", help="where the commands are written, for slurm")
    sweep.add_argument("--address", help="of Ray's cluster")
    for one in (jobset, kueue, sweep):
        one.add_argument(
            "--apply", action="store_true", help="hand it to kubectl, or submit it, instead of printing it"
        )
    return parser


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="small letters, digits and dashes")


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zone", help="such as us-west4-a")
    parser.add_argument("--project", help="of Google Cloud; the one that gcloud is set to by default")
    parser.add_argument(
        "--iap", action="store_true", help="ssh through the Identity-Aware Proxy, without addresses outside"
    )
    parser.add_argument("--poll", type=float, default=30.0, metavar="SECONDS", help="between questions to the service")
    parser.add_argument(
        "--tries",
        type=int,
        default=5,
        metavar="N",
        help="failures of one kind in a row that are borne; twenty times as many, over hours, of a service that has answered",
    )


def _shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type", dest="type_", metavar="TYPE", help="such as v5litepod-16, where the command's mesh does not say it"
    )
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="that compute together")


def _asked(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_mutually_exclusive_group()
    for flag, kind in _CAPACITY.items():
        kinds.add_argument(flag, dest="capacity", action="store_const", const=kind)
    parser.set_defaults(capacity="on-demand")
    parser.add_argument("--run-duration", metavar="TIME", help="of flex-start, at most, such as 24h; 7d at most")
    parser.add_argument("--reservation", metavar="NAME", help="whose chips to take")
    parser.add_argument("--service-account", metavar="EMAIL", help="that the machines act as")
    parser.add_argument("--internal-ips", action="store_true", help="machines without addresses outside; see --iap")


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zone", help="whose prices count, such as us-west4-a")


def _checks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--unchecked", action="store_true", help="do not compile the command's step first")
    parser.add_argument(
        "--checks", type=int, default=16, metavar="N", help="programs of a sweep that are compiled, at most"
    )
    parser.add_argument("--hours", type=float, help="that a run takes, as you know it")
    _price(parser)
    parser.add_argument("--budget", type=float, metavar="USD", help="refuse what is predicted to cost more")
    parser.add_argument("--python", help="that has the package; the checkout's .venv by default")


def _price(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--price", type=float, metavar="USD", help=f"a chip and hour, in place of {prices.FILE.name}")


def _job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bucket", help="gs://NAME, where code, wheels and logs go")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the command's environment")
    parser.add_argument("--dirty", action="store_true", help="run the last commit although the checkout has changes")


def _cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="of tpu/Dockerfile, in a registry")
    parser.add_argument("--queue", help="the LocalQueue; the sweep's or job's name by default")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--service-account", default="default", help="of Kubernetes")
    parser.add_argument("--on-demand", action="store_true", help="machines that are not taken away")
    parser.add_argument("--restarts", type=int, default=100, metavar="N", help="of a run, at most")
    parser.add_argument("--grace", type=int, default=120, metavar="SECONDS", help="between SIGTERM and the end")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the command's environment")
    parser.add_argument("--context", help="of kubectl")


if __name__ == "__main__":
    raise SystemExit(main())
