"""What is done with pictures that have text burned into their pixels, or may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ingest.raw.items import RejectError
from ingest.readers.base import BurnedIn, RawImage
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec

Policy = Literal["keep", "crop", "reject"]


def burned_in_policy(spec: SourceSpec, settings: IngestSettings) -> Policy:
    """The job's policy, else the source's."""
    return spec.burned_in if settings.burned_in == "source" else settings.burned_in


def without_text(image: RawImage, policy: Policy) -> tuple[RawImage, bool]:
    """Apply the policy; says whether the image was cropped.

    `keep` changes nothing. `reject` takes no image that is known to carry text; one that may carry some (an ultrasound
    image with a border) stays. `crop` cuts every image down to the ultrasound regions that its file states, whether
    text is known to be outside of them or not, and takes no other image that is known to carry text.

    Raises:
        RejectError: The image is not taken.
    """
    if policy == "keep":
        return image, False
    known = image.burned_in.value == "yes"
    if policy == "reject" or image.region is None:
        if known:
            raise RejectError("burned_in", image.burned_in.by if policy == "reject" else "no region stated")
        return image, False
    top, left, bottom, right = image.region
    pixels = image.pixels[top:bottom, left:right]
    said = BurnedIn("unknown", "SequenceOfUltrasoundRegions")
    return replace(image, pixels=pixels, region=None, burned_in=said), True
