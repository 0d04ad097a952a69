"""What each process of `test_whole_way` does: stream a lock with its columns, as one rank among its peers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch.utils.data import DataLoader

from shards.decode import Crops
from shards.stream import Stream
from shards.torch_dataset import StreamDataset
from train.checkpoint.compare import code_version
from train.distributed import check_same_data, join_world


def main(out: Path, lock: Path, num_batches: int) -> None:
    """Stream some batches from where `out/state.json` says, and write what was in them beside it."""
    with join_world() as world:
        stream = Stream(
            lock,
            crops=(Crops(size_px=32),),
            global_batch=4,
            seed=5,
            columns=["age", "label"],
            rank=world.rank,
            world_size=world.size,
        )
        dataset = StreamDataset(stream)
        check_same_data(world, stream.digests, data=str(lock), code_version=code_version())
        state = out / "state.json"
        if state.exists():
            dataset.load_state_dict(json.loads(state.read_text()))
        words = dataset.categories["label"]
        batches = []
        for batch, _ in zip(DataLoader(dataset, batch_size=None), range(num_batches), strict=False):
            labels = [words[number] if number >= 0 else None for number in batch["columns"]["label"].tolist()]
            assert len(batch["views"][0]) == len(batch["keys"]) == 4 // world.size
            batches.append(list(zip(batch["keys"], batch["columns"]["age"].tolist(), labels, strict=True)))
        (out / f"rank-{world.rank}.json").write_text(json.dumps({"batches": batches, "state": dataset.state_dict()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
