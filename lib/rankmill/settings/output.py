"""Settings of the commands that look at an output folder: verify, status, gc, retry-rejected."""

from pydantic import Field
from pydantic_settings import CliPositionalArg

from rankmill.settings.load import CommandSettings
from rankmill.settings.storage import StorageSettings


class OutputSettings(CommandSettings):
    """What all of them take."""

    output: CliPositionalArg[str] = Field(description="folder that `rankmill rerank` writes; local path or URI")
    storage: StorageSettings = Field(default_factory=StorageSettings)
    as_json: bool = Field(False, alias="json", description="print one JSON object")


class VerifySettings(OutputSettings):
    """Check that OUTPUT is whole: every pair accounted for once, every byte as it was written.

    Looks at the records, the size of every file and the footer of every part; --deep reads everything. The exit code
    is 0 if OUTPUT is complete and nothing is wrong with it, else 1, and everything that is wrong is named. It may be
    asked about a job that is running or was killed: what is finished so far is checked, and it is called incomplete.
    """

    deep: bool = Field(False, description="read every part whole: hashes, page checksums, ranks, ids")


class StatusSettings(OutputSettings):
    """Say how far the job in OUTPUT is, from any machine that can read the folder."""

    watch: float | None = Field(None, gt=0, description="look again after so many seconds, until the job is done")


class GcSettings(OutputSettings):
    """Delete what killed runs left in OUTPUT: files that no commit record names, copies of input rows, probe objects.

    What the commit records name stays byte for byte, and so does any file that is not ours. Refused while a run is
    alive.
    """

    dry_run: bool = Field(False, description="say what would be deleted, and delete nothing")
