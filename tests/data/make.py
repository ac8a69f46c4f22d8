"""Records for tests."""

import hashlib

import numpy as np
from hypothesis import strategies as st

from lgdea_jax.data.sums import SUMS_FILE
from lgdea_jax.records import CERTAINTIES, LATERALITIES, SEVERITIES, TEMPORALITIES, TERMS, Box, Evidence, Record

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
FLOAT = st.floats(width=32, allow_nan=False)


def write_sums(folder):
    """Makes SHA256SUMS true again in a data set that a test has changed."""
    file = folder / SUMS_FILE
    names = [line.split("  ")[1] for line in file.read_text().splitlines()]
    text = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
                   if (folder / name).is_file())
    file.unlink()  # It may be a link.
    file.write_text(text)


@st.composite
def evidence(draw):
    start = draw(st.integers(0, 10_000))
    phrase = draw(TEXT)
    return Evidence(draw(TEXT), draw(TEXT), draw(st.sampled_from(LATERALITIES)), draw(st.sampled_from(SEVERITIES)),
                    draw(st.sampled_from(CERTAINTIES)), draw(st.sampled_from(TEMPORALITIES)), phrase, start,
                    start + len(phrase))


BOX = st.builds(Box, TEXT, TEXT, FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, FLOAT)


def shapes():
    return st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3).map(lambda v: np.array(v, np.int32))


def records(n_labels=3):
    """A strategy for any record with `n_labels` labels."""
    return st.builds(
        Record, study_id=TEXT, image_id=TEXT, subject_id=TEXT, modality=TEXT, view=TEXT, image=st.binary(max_size=50),
        image_format=TEXT, image_shape=shapes(), original_shape=shapes(),
        spacing=st.lists(FLOAT, min_size=3, max_size=3).map(lambda v: np.array(v, np.float32)), report=TEXT,
        evidence=st.lists(evidence(), max_size=4).map(tuple), normal=st.booleans(),
        labels=st.lists(st.sampled_from((1, 0, -1, -2)), min_size=n_labels, max_size=n_labels).map(
            lambda v: np.array(v, np.int8)),
        boxes=st.lists(BOX, max_size=3).map(tuple), has_image=st.booleans(), has_report=st.booleans(),
        sex=st.sampled_from(("", "M", "F")), age=st.floats(0, 120, width=32) | st.just(float("nan")), source=TEXT,
        licence=TEXT, terms=st.sampled_from(TERMS), language=TEXT, extractor=TEXT, transform=TEXT,
        label_source=TEXT)


def assert_equal(a, b):
    """Every field is equal in value and type (NaN ages are equal)."""
    for name, left in vars(a).items():
        right = getattr(b, name)
        assert type(left) is type(right), name
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, name
        np.testing.assert_equal(right, left, err_msg=name)
