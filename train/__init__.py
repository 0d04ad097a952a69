"""DINOv2 and MAE pretraining on streamed shards."""
