"""Files for containers, Kubernetes, SLURM and Terraform, rendered from one values file.

`ingest.sbatch`, `pretrain.sbatch`, `probe.sbatch` and `sweep.sbatch` are used as they are; `templates/` holds the rest.
"""
