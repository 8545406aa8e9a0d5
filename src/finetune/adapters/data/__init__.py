"""Rows in, decisions out: JSONL, CSV and Parquet files."""
