"""What a training step does by Triton kernels on a GPU; the same in torch, the reference, stands in `train`."""
