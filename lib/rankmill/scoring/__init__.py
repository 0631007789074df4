"""The heart: pair assembly, packing, model families and engines behind one seam (`scorer.Scorer`).

Nothing here may import ray, nor anything from `batch`, `serving` or `training`.
"""
