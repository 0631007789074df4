"""Finds the command, builds its settings, runs it, and turns every outcome into an exit code."""

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankmill import __version__
from rankmill.cli.stop import exit_code
from rankmill.errors import RankmillError, UsageError
from rankmill.settings.load import PREFIX, CommandSettings, load_settings, variables_of


@dataclass(frozen=True, slots=True)
class Command:
    """What comes after `rankmill`: one word, or two, such as `models inspect` and `bench --serve`."""

    summary: str
    settings: str
    """`module:class` of its settings."""
    run: str
    """`module:function` that takes the settings and returns the exit code."""


_LIKE = 0.9
"""How alike two variables are, at the least, of which one is taken for the other: a letter or two."""

COMMANDS = {
    "demo": Command(
        "rerank real text on this machine and measure the gain, offline",
        "rankmill.settings.demo:DemoSettings",
        "rankmill.cli.demo:run",
    ),
    "rerank": Command(
        "rerank candidates in bulk, from Parquet or JSONL to Parquet",
        "rankmill.settings.rerank:RerankSettings",
        "rankmill.cli.rerank:run",
    ),
    "plan": Command(
        "say what `rerank` would do with the same flags, and what it would take",
        "rankmill.settings.plan:PlanSettings",
        "rankmill.cli.plan:run",
    ),
    "verify": Command(
        "check that an output is whole: every pair accounted for once, every byte as written",
        "rankmill.settings.output:VerifySettings",
        "rankmill.cli.verify:run",
    ),
    "status": Command(
        "say how far a job is, from any machine",
        "rankmill.settings.output:StatusSettings",
        "rankmill.cli.status:run",
    ),
    "retry-rejected": Command(
        "rank the queries again that lost rows to the model or the machine",
        "rankmill.settings.retry:RetrySettings",
        "rankmill.cli.retry_rejected:run",
    ),
    "gc": Command(
        "delete what killed runs left in an output",
        "rankmill.settings.output:GcSettings",
        "rankmill.cli.gc:run",
    ),
    "score": Command(
        "score pairs, or rank the documents of one query, in this process",
        "rankmill.settings.score:ScoreSettings",
        "rankmill.cli.score:run",
    ),
    "serve": Command(
        "rerank over HTTP, in the formats of Cohere, Jina, Voyage, TEI, vLLM and others",
        "rankmill.settings.serve:ServeSettings",
        "rankmill.cli.serve:run",
    ),
    "index": Command(
        "build a searchable index of a corpus, for two-stage search",
        "rankmill.settings.index:IndexSettings",
        "rankmill.cli.index:run",
    ),
    "models inspect": Command(
        "say what was understood of a model, and test it",
        "rankmill.settings.models:InspectSettings",
        "rankmill.cli.models:inspect",
    ),
    "evaluate": Command(
        "measure rankings against judgements",
        "rankmill.settings.evaluate:EvaluateSettings",
        "rankmill.evaluation.command:evaluate_command",
    ),
    "train": Command(
        "train a cross-encoder",
        "rankmill.settings.train:TrainSettings",
        "rankmill.training.command:train_command",
    ),
    "bench": Command(
        "measure this machine: the scorer and the job around it",
        "rankmill.settings.bench:BenchSettings",
        "rankmill.cli.bench:run",
    ),
    "bench --serve": Command(
        "measure the endpoint: what it costs beyond the scorer, and other servers",
        "rankmill.settings.bench_serve:ServeBenchSettings",
        "rankmill.cli.bench:serve",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `rankmill.errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help", "help"}:
        sys.stdout.write(usage())
        return 0 if words else UsageError.exit_code
    if words[0] == "--version":
        sys.stdout.write(f"rankmill {__version__}\n")
        return 0
    if " ".join(words[:2]) in COMMANDS:
        words[:2] = [" ".join(words[:2])]
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        sys.stderr.write(f"rankmill: {words[0]} is not a command.{hint}\n\n{usage()}")
        return UsageError.exit_code
    return run_command(words[0], words[1:], prog=f"rankmill {words[0]}")


def run_command(command: str | Command, flags: Sequence[str], prog: str) -> int:
    """Run one of COMMANDS, or another, with its flags; errors raised on purpose become a sentence and an exit code."""
    if isinstance(command, str):
        command, flags = _mode(command, flags)
    _log_to_stderr()
    try:
        _refuse_misspelled_variables(_load(command.settings))
        settings = load_settings(_load(command.settings), flags, prog)
        code: int = _load(command.run)(settings)
        return code  # noqa: TRY300 - the errors caught are raised above
    except RankmillError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"{prog}: stopped.\n")
        return exit_code(stop)


def _refuse_misspelled_variables(settings_class: type[CommandSettings]) -> None:
    """Refuse variables that almost are a setting of some command, as misspelled flags are.

    Others that no command knows are let alone: they may be anybody's, such as those that Kubernetes makes of a service
    that is called rankmill.
    """
    own = set(variables_of(settings_class))
    given = [name for name, value in os.environ.items() if name.startswith(PREFIX) and value and name not in own]
    if not given:
        return
    known = own.union(*(variables_of(_load(command.settings)) for command in COMMANDS.values()))
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=_LIKE) for name in given if name not in known}
    lines = [
        f"{name} is not a setting of any command. Did you mean {found[0]}?" for name, found in near.items() if found
    ]
    if lines:
        raise UsageError("\n".join(sorted(lines)))


def _mode(name: str, flags: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """A command and its flags; one of them, wherever it stands, may choose another command: `bench --serve`."""
    for flag in flags:
        if flag.startswith("--") and f"{name} {flag}" in COMMANDS:
            return COMMANDS[f"{name} {flag}"], [other for other in flags if other != flag]
    return COMMANDS[name], flags


def usage() -> str:
    """What `rankmill --help` says."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rankmill COMMAND [--flags]",
            "",
            *lines,
            "",
            "`rankmill COMMAND --help` lists the flags of a command; --config FILE.yaml and RANKMILL_... work for all.",
            "",
        ]
    )


class _ToStderr(logging.Handler):
    """Writes to what is standard error by then: whoever runs several commands in one process may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(f"{self.format(record)}\n")


def _log_to_stderr() -> None:
    """Show our own log lines; libraries' loggers keep Python's default, warnings only."""
    logger = logging.getLogger("rankmill")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = _ToStderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
