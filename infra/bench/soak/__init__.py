"""A soak: the commands of a dataset's life under random faults, held against a run without any.

    python -m infra.bench.soak --minutes 5 --seed 1

Sources grow, are ingested, streamed, trained on and probed, on a small disk of their own and on a local S3 server
behind a proxy that breaks its replies. A command is tried under faults until it ends with exit code 0, at last without
a fault. Beside each dataset lies a reference that the same commands make undisturbed. What ends with exit code 0 must
equal it: the shards, the rows, the keys of every batch, each loss, each score.
"""
