"""What a measurement found: figures with a name and a unit, as a table for people and JSON for machines."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from rankmill.batch.machine import cores
from rankmill.bench.machine import Machine, this_machine
from rankmill.settings.scale import ScaleSettings

Say = Callable[[str], None]
"""Takes a line for people now and then."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number."""

    name: str
    value: float
    unit: str
    target: str = ""
    """What it should be, in words; empty where nothing is promised."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement."""

    measurement: str
    machine: Machine
    figures: tuple[Figure, ...]
    note: str
    """What exactly is counted."""

    def value(self, name: str) -> float:
        """The number of this name; KeyError when there is none."""
        return {figure.name: figure.value for figure in self.figures}[name]


def run(name: str, figures: Sequence[Figure], note: str) -> Measured:
    """Put figures together with the machine that they depend on."""
    return Measured(name, this_machine(cores()), tuple(figures), note)


def show(measured: Measured, settings: ScaleSettings) -> int:
    """Print a table, and JSON last where that is asked for; returns the exit code 0."""
    console = Console(highlight=False, quiet=settings.quiet, stderr=settings.as_json)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in (("", "left"), (measured.measurement, "right"), ("", "left"), ("target", "left")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for figure in measured.figures:
        table.add_row(figure.name, _number(figure.value), figure.unit, figure.target)
    console.print(table)
    machine = measured.machine
    console.print(f"{measured.note} {machine.cpu}, {machine.threads} cores, {machine.date}.", soft_wrap=True)
    if settings.as_json:
        sys.stdout.write(json.dumps(asdict(measured)) + "\n")
    return 0


def sayer(settings: ScaleSettings) -> Say:
    """Says lines on standard error, or nothing."""
    console = Console(highlight=False, quiet=settings.quiet, stderr=True)
    return lambda line: console.print(line, soft_wrap=True, markup=False)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
