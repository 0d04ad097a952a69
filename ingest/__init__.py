"""Raw public sources into deduplicated, modality-tagged shards."""
