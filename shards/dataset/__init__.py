"""The dataset on storage: shard files, tables, verification."""
