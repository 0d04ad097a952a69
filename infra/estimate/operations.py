"""Floating-point operations that training takes per image: products of matrices alone, forward and backward.

A token costs 24·d² operations per layer in linear maps and 4·n·d in attention over n tokens (Kaplan et al., 2020,
appendix B, with the attention counted); the backward pass costs twice the forward one.
"""

from __future__ import annotations

from typing import Final, Literal

from eval.scaling.parameters import SIZES

Method = Literal["mae", "dinov2"]

PEAK_BF16: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second, from the data sheets (SXM)."""
GLOBAL_CROPS: Final = 2
LOCAL_CROPS: Final = 8
LOCAL_PX: Final = 96
MASK_RATIO: Final = 0.75
_PROTOTYPES: Final = 65_536
_HEAD: Final = (2048, 256)
_DECODER: Final = (512, 8)


def encoder_forward(width: int, depth: int, tokens: int) -> float:
    """Operations of one forward pass over one sequence."""
    return float(tokens * depth * (24 * width**2 + 4 * tokens * width))


def mae_operations(size: str, *, image_px: int = 224, patch_px: int = 16) -> float:
    """Per image, forward and backward: the encoder on the visible patches, the decoder on all of them."""
    width, depth = SIZES[size]
    patches = (image_px // patch_px) ** 2
    visible = round(patches * (1 - MASK_RATIO))
    decoder_width, decoder_depth = _DECODER
    pixels = 3 * patch_px**2
    linear = 2 * (visible * pixels * width + (visible + 1) * width * decoder_width + patches * decoder_width * pixels)
    forward = encoder_forward(width, depth, visible + 1) + encoder_forward(decoder_width, decoder_depth, patches + 1)
    return 3 * (forward + linear)


def dinov2_operations(size: str, *, image_px: int = 224, patch_px: int = 16) -> float:
    """Per image: the student on all crops, forward and backward; the teacher on the global ones, forward; the heads."""
    width, depth = SIZES[size]
    global_tokens = (image_px // patch_px) ** 2 + 1
    local_tokens = (LOCAL_PX // patch_px) ** 2 + 1
    one_global = encoder_forward(width, depth, global_tokens)
    student = GLOBAL_CROPS * one_global + LOCAL_CROPS * encoder_forward(width, depth, local_tokens)
    hidden, bottleneck = _HEAD
    row = 2 * (width * hidden + hidden**2 + hidden * bottleneck + bottleneck * _PROTOTYPES)
    masked = 0.5 * 0.3 * GLOBAL_CROPS * (global_tokens - 1)
    heads = row * (3 * (GLOBAL_CROPS + LOCAL_CROPS + masked) + GLOBAL_CROPS + masked)
    return 3 * student + GLOBAL_CROPS * one_global + heads


def operations(method: Method, size: str, *, image_px: int, patch_px: int) -> float:
    """Per image, of either method."""
    count = mae_operations if method == "mae" else dinov2_operations
    return count(size, image_px=image_px, patch_px=patch_px)


def output_megapixels(method: Method, *, image_px: int) -> float:
    """Pixels of all crops of an image, in millions."""
    if method == "mae":
        return image_px**2 / 1e6
    return (GLOBAL_CROPS * image_px**2 + LOCAL_CROPS * LOCAL_PX**2) / 1e6
