"""What `serve deploy` will import: the online endpoint, with the batch job's scorer. Not built yet."""
