"""Candidate and ranking tables: schemas, readers and writers of Parquet, JSONL and TREC. Columns, never row objects."""
