"""The online endpoint: limits, dialects, one internal request, a batcher per scorer, Ray Serve around it.

Only `application`, `deployments`, `presence`, `serve_backend` and `serve_retriever` know Ray; everything else is plain
asyncio and needs none in a test.
"""
