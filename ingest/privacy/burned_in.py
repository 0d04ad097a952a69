"""What is done with pictures that have text burned into their pixels, or may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ingest.privacy.text_finder import has_text, said_with_detector
from ingest.raw.items import RejectError
from ingest.readers.base import BurnedIn, RawImage
from ingest.readers.pillow import Picture
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


def looked_at(image: RawImage, stored: Picture, policy: Policy) -> RawImage:
    """Look for text in a picture that `without_text` took, and apply the policy to what is found.

    Args:
        image: As `without_text` gave it.
        stored: `(h, w)` or `(h, w, 3)` uint8, the pixels as they are stored.
        policy: `keep` notes what was found; under `reject` and `crop` a picture with text is not taken.

    Raises:
        RejectError: The picture has text and is not taken.
    """
    said = said_with_detector(image.burned_in, found=has_text(stored))
    if said.value == "yes" and policy != "keep":
        raise RejectError("burned_in", said.by)
    return replace(image, burned_in=said)
