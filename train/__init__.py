"""DINOv2 and MAE pretraining on streamed shards.

Read in this order: `recipe` (what a person sets), `objectives/` (one formula a file), `methods/` (networks and
objectives put together), `loop` (a step), `pretrain` (a run), `checkpoint`.
"""
