"""`rankmill bench --serve`: the endpoint against the bare scorer and against other servers.

Servers are processes of their own, reached over loopback only. Nothing here knows of Ray.
"""
