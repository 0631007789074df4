"""The one place that connects to Ray: join or start a cluster, and refuse one that could not run the job as it is.

Ray and Ray Data read some of their settings when they are imported, so no module here imports Ray at the top: commands
that need Ray call `connect` first and import `rankmill.batch` inside the block.
"""

from rankmill.cluster.capacity import require_resources
from rankmill.cluster.connection import connect

__all__ = ["connect", "require_resources"]
