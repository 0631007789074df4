"""The wire formats of other rerank servers, one module each: bodies in, `RerankRequest`; `RerankResult`, bodies out.

Pure functions of JSON values: no network, no scorer, no Ray.
"""
