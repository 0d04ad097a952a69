"""The stream against other loaders: the same images in each one's format, the same work, side by side.

    python -m infra.bench.peers --work FOLDER [--images 20000] [--workloads A B C M] [--json FILE]

`contestants.py` says who runs and how each is installed, `loaders/` holds one small script a contestant, written in its
documented idiom. Everything the benchmark makes lies under `--work` and is used again by the next run.
"""
