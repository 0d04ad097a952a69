"""Image decoding for streams: compressed bytes in, uint8 crops out.

`open_decoder` chooses between three decoders of one interface (`Decoder`): `native` is C on libjpeg-turbo and the
fastest on a CPU, `library` needs nothing but wheels, `device` decodes on a GPU. All draw the same crops.
"""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from shards.decode.base import Crops, Decoder, Mode, Status
    from shards.decode.opening import DecoderReport, describe_decoder, open_decoder
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Crops": "shards.decode.base",
            "Decoder": "shards.decode.base",
            "DecoderReport": "shards.decode.opening",
            "Mode": "shards.decode.base",
            "Status": "shards.decode.base",
            "describe_decoder": "shards.decode.opening",
            "open_decoder": "shards.decode.opening",
        },
    )

__all__ = ["Crops", "Decoder", "DecoderReport", "Mode", "Status", "describe_decoder", "open_decoder"]
