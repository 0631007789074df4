"""The one place that connects to Ray: join or start a cluster, and refuse one that could not run the job as it is.

Ray and Ray Data read some of their settings when they are imported, so no module here imports Ray at the top: commands
that need Ray call `connect` first and import `rankmill.batch` inside the block.
"""

from rankmill.cluster.capacity import ClusterInfo, Node, require_resources
from rankmill.cluster.connection import choose_target, connect
from rankmill.cluster.source import Source

__all__ = ["ClusterInfo", "Node", "Source", "choose_target", "connect", "require_resources"]
