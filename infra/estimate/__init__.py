"""What a training run will need, before anything is paid for."""
