"""The dataset on storage: shards, index, subsets, order, stream; and what all packages share."""
