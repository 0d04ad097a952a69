"""What a rank reads of a billion images among a thousand ranks: order, look-ahead, reader and cache of a real stream.

    python -m infra.bench.billion --ranks 1024 --batch 65536

Only the index and the store are made up: rows that are computed, and objects of zeros of the right length, whose
checksums the reader verifies like any other. Requests may take time: `--latency-ms`, `--gbit` (of a rank).

For some ranks, over some batches of the epoch, a JSON line each:

- `bytes_used`, `bytes_read`, `amplification`: bytes of the samples with what surrounds them in their shards; bytes that
  the reader asked the store for; the second over the first. `predicted` is what `biovfm plan` says of ranks that share
  lanes; the windows that were open where the stream begins come on top.
- `held_bytes`: in the reader's cache at most; `process_grown_mb`: what the process grew by in the second half.
- `first_batch_seconds`: from making the stream to its first batch, in real time. By the formula it takes at least 2 ×
  `order_seconds` (the stream makes the order, and so does the loop over it) + ⌈shards / 16 connections⌉ × latency +
  bytes of the samples / bandwidth, and at most 16 blocks of 1 MiB / bandwidth more, since the blocks of the next
  batches come beside it. Not in it: `decode_seconds`, samples × core-seconds of one / cores, and the opening of the
  index (`python -m infra.bench.plan`).
- `restart_read_again`: a node died, and all ranks start again in the middle: what a rank reads twice, in batches. The
  restart costs the first batch again, and the steps since the last checkpoint.
- `halved_bytes`: half the ranks go on without the others: bytes that each reads per batch, over those before; each
  trains on twice the samples. 0 where half the ranks do not divide the batch.
- `slow_down`: how many times longer all steps take when this rank's link has a quarter of the rate that keeps it at
  80 %. Every step waits for its slowest rank; what was read ahead only puts it off.

And a last line: `balance`, the most bytes that a rank read over the mean.
"""
