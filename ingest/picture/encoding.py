"""A dataset's encoding policy: how every picture in it is stored, fixed when the dataset is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shards.errors import ConfigError
from shards.settings import parse

NEW_DATASETS: Final[Mapping[str, Any]] = {"resampler": "native"}
"""Keys of which new datasets get another value than those have whose `dataset.json` lacks the key."""


class Encoding(BaseModel):
    """The policy in `dataset.json`; one without a key has the key's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    short_side_px: int = Field(
        512, ge=0, description="Pictures whose short side is longer are reduced to it, antialiased; 0 keeps every size."
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="Colour is not subsampled.")
    format: Literal["auto", "jpg", "png"] = Field("auto", description="auto is JPEG.")
    resampler: Literal["pillow", "native"] = Field(
        "pillow",
        description="Pillow's bicubic filter, or the decoder's own in C: equal within rounding, eight times as fast. "
        "New datasets get `native`; a dataset without the key keeps `pillow`.",
    )

    @classmethod
    def of_dataset(cls, settings: Mapping[str, Any]) -> Encoding:
        """The policy in `dataset.json`.

        Raises:
            ConfigError: The dataset's policy names something that this release does not know.
        """
        try:
            return parse(cls, settings.get("encoding", {}), where="encoding policy")
        except ConfigError as error:
            raise ConfigError(f"dataset.json: {error.message}", hint="use the release that made the dataset") from error

    @classmethod
    def of_new_dataset(cls, wanted: Mapping[str, Any]) -> Encoding:
        """The policy of a dataset that is still to be made.

        Args:
            wanted: Keys that the user sets.

        Raises:
            ConfigError: A key or value is unknown.
        """
        return parse(cls, {**NEW_DATASETS, **wanted}, where="--encoding")

    def identity(self) -> dict[str, Any]:
        """What of it decides a job's id; a resampler that was always the only one is left out."""
        return self.model_dump(exclude={"resampler"} if self.resampler == "pillow" else None)

    def require(self) -> None:
        """Check that what the policy asks for is there: bytes must not depend on what a machine happens to have.

        Raises:
            ConfigError: The native resampler cannot be used here.
        """
        if self.resampler == "native":
            from shards.decode.native_decoder import NativeUnavailableError, load

            try:
                load()
            except NativeUnavailableError as error:
                raise ConfigError(
                    f"the encoding policy wants the native resampler, which cannot be used: {error}",
                    hint="build it (`python -m shards.native.build`), or give `--encoding resampler=pillow`",
                ) from error
