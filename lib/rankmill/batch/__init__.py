"""The batch job on Ray Data: plan, shards, pipeline, commit. The only layer with Ray beside serving and training."""
