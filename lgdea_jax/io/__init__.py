"""Decoding image files to arrays with their geometry (NumPy only)."""

from lgdea_jax.io.encoded import ENCODINGS, decode_image, encode_image
from lgdea_jax.io.files import read_image_file
from lgdea_jax.io.image_info import ImageInfo, UnreadableImage

__all__ = ["ENCODINGS", "ImageInfo", "UnreadableImage", "decode_image", "encode_image", "read_image_file"]
