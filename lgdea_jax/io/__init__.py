"""Decoding image and volume files to arrays with their geometry (NumPy only)."""

from lgdea_jax.io.encoded import ENCODINGS, decode_image, encode_image
from lgdea_jax.io.encoded_volume import decode_volume, encode_volume
from lgdea_jax.io.files import read_image_file
from lgdea_jax.io.image_info import ImageInfo, UnreadableImage
from lgdea_jax.io.raw_volume import VolumeHeader
from lgdea_jax.io.volumes import VolumeInfo, read_volume

__all__ = ["ENCODINGS", "ImageInfo", "UnreadableImage", "VolumeHeader", "VolumeInfo", "decode_image", "decode_volume",
           "encode_image", "encode_volume", "read_image_file", "read_volume"]
