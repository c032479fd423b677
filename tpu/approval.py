"""What is told, and may be refused, before anything is asked for: the fit, the hours and the price of a command."""

import argparse
from collections.abc import Sequence

from immunax.runtime.errors import UserError
from tpu import check, names, package, prices
from tpu.calls import told
from tpu.job import Job, parts_of
from tpu.mistakes import NotFitError
from tpu.package import Run
from tpu.prices import Price
from tpu.slices import Shape


def approved(
    options: argparse.Namespace,
    job: Job,
    shape: Shape,
    capacity: str,
    runs: Sequence[Run] | None = None,
    at_once: int | None = 1,
) -> Price:
    """Compiles a command for its slice, and tells hours and price.

    Args:
      options: of the command line; ``unchecked``, ``hours``, ``price``, ``budget``, ``zone`` and others.
      job: the command.
      shape: of each slice.
      capacity: one of ``prices.CAPACITIES``.
      runs: of the command, where they are known.
      at_once: runs side by side; None for as many as there is room for.

    Returns:
      The price of an hour; 0 where it is not known.

    Raises:
      NotFitError: it does not fit the slice, or the budget.
      UserError: the command is wrong, or cannot be checked, or there is nothing to compare a budget with.
    """
    # What costs no time comes first.
    if options.budget is not None and options.unchecked and options.hours is None:
        raise UserError(f"--budget {options.budget:g}: nothing is predicted with --unchecked; give --hours too.")
    price, parts = _price(options, shape, capacity), parts_of(job)
    forecast = None
    if options.dry_run:
        told("not checked, as nothing is run")
    elif not options.unchecked:
        interpreter = package.python(options.python)
        runs = package.runs(interpreter, job) if runs is None else runs
        forecast = check.check(
            interpreter, runs, shape, options.slices, options.hours, names.positive("--checks", options.checks), parts
        )
        told(f"fits {shape.type}" if parts == 1 else f"{parts} runs at once fit {shape.type}")
    elif options.hours is not None:
        forecast = check.Forecast(1 if runs is None else len(runs), options.hours, "as given", parts)
    if price is None:
        if options.budget is not None:
            raise UserError(f"--budget {options.budget:g}: there is no price; give --zone or --price.")
        told("no price: give --zone or --price")
        return Price(0.0, "")
    if forecast is None:
        told(f"{price.told}: ${price.hour:,.2f} an hour")
        return price
    told(forecast.line(price, at_once))
    cost = forecast.taken * price.hour
    if options.budget is not None and cost > options.budget:
        raise NotFitError(f"--budget {options.budget:g}: at least ${cost:,.2f} is predicted.")
    return price


def _price(options: argparse.Namespace, shape: Shape, capacity: str) -> Price | None:
    slices = names.positive("--slices", options.slices)
    if options.zone is None and options.price is None:
        return None
    zone = "" if options.zone is None else names.zone(options.zone)
    return prices.of(shape, slices, zone, capacity, options.price)
