"""The steps of an ingest job, in the order of their names here: list, place, map, resolve, promote, commit."""
