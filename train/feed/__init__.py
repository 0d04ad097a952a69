"""From the stream's batches on the host to batches on the device: a thread, a ring of slots, events.

Read in this order: `side` (streams, events and pinned memory behind a seam), `ring` (when a slot may be written),
`feeder` (the thread), `device_stream` (what a trainer iterates over).
"""
