"""DINOv2 and MAE pretraining on streamed shards.

Read in this order: `recipe` (what a person sets), `objectives/` (one formula per file), `methods/` (networks and
objectives put together), `feed` (batches on the device), `loop` (a step), `run` (a whole run), `checkpoint`.
"""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from train.feed.device_stream import DeviceBatch, DeviceStream
    from train.recipe_files import load_recipe
    from train.run import pretrain
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "DeviceBatch": "train.feed.device_stream",
            "DeviceStream": "train.feed.device_stream",
            "load_recipe": "train.recipe_files",
            "pretrain": "train.run",
        },
    )

__all__ = ["DeviceBatch", "DeviceStream", "load_recipe", "pretrain"]
