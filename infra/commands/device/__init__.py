"""What the accelerator of this machine can do: a quick check, a benchmark, and a folder that brings both elsewhere."""
