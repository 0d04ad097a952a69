"""DICOM: which objects are images, their frames, and the grayscale pipeline of the standard."""

from ingest.readers.dicom.read import read

__all__ = ["read"]
