"""Measure the machinery around a scorer, without a model: `python jobs/scale.py NAME --help`."""

import sys

from rankmill.cli.main import Command, run_command

COMMANDS = {
    name: Command(
        summary, f"rankmill.settings.scale:{name.title()}Settings", f"rankmill.bench.scale.{name}:{name}_command"
    )
    for name, summary in {
        "commit": "what committing costs a job, in a local folder and on S3",
        "footers": "how fast many Parquet files are looked at",
        "workers": "how busy many scoring workers are kept",
        "resume": "how soon a job with many committed shards goes on",
        "endpoint": "what Ray Serve takes for a request on which nothing is done",
    }.items()
}

if __name__ == "__main__":
    name = "".join(sys.argv[1:2])
    if name not in COMMANDS:
        lines = [f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()]
        sys.exit("\n".join(["usage: jobs/scale.py NAME [--flags]", "", *lines]))
    sys.exit(run_command(COMMANDS[name], sys.argv[2:], prog=f"jobs/scale.py {name}"))
