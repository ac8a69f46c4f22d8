"""A tiny hand-made world and models whose right answers are known, for the tests of evaluators and scripts."""

import numpy as np

from lgdea_jax.io import encode_image
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Box, Evidence, Record

LABELS = ("Nodule", "Cardiomegaly", "Pleural Effusion")
PHRASES = {"Nodule": "Nodule in the right lung", "Cardiomegaly": "The heart is enlarged",
           "Pleural Effusion": "Small left pleural effusion"}
SIZE = 32
# Where each finding is drawn, in patches of a 4 x 4 grid: (row, column).
PLACES = {"Nodule": (0, 0), "Cardiomegaly": (2, 1), "Pleural Effusion": (3, 3)}
WORDS = {"Nodule": "nodule", "Cardiomegaly": "heart", "Pleural Effusion": "effusion"}


def record(index, findings, *, subject=None, shape=(SIZE, SIZE), original=None, boxes=True, report=None, image=True,
           labels=None):
    """A study whose image has one bright patch per finding, brightness naming the finding."""
    original = original or shape
    pixels = np.zeros((4, 4), np.uint8)
    for name in findings:
        pixels[PLACES[name]] = 60 * (1 + LABELS.index(name))
    pixels = np.kron(pixels, np.ones((shape[0] // 4, shape[1] // 4), np.uint8))
    h, w = original[0] / 4, original[1] / 4
    place = [Box(name, PHRASES[name], PLACES[name][1] * w, PLACES[name][0] * h, w, h) for name in findings]
    if report is None:
        report = "Findings: " + (". ".join(PHRASES[name] for name in findings) or "normal chest")
    evidence = []
    for name in findings:
        start = report.find(PHRASES[name])
        if start >= 0:
            evidence.append(Evidence(name, "", "", "", "present", "", PHRASES[name], start, start + len(PHRASES[name])))
    values = [POSITIVE if name in findings else NEGATIVE for name in LABELS]
    return Record(
        study_id=f"study{index}", image_id="0", subject_id=subject or f"subject{index}", modality="CXR", view="PA",
        image=encode_image(pixels, "png") if image else b"", image_format="png",
        image_shape=np.array([1, *shape], np.int32), original_shape=np.array([1, *original], np.int32),
        spacing=np.zeros(3, np.float32), report=report, evidence=tuple(evidence), normal=not findings,
        labels=np.array(values if labels is None else labels, np.int8), boxes=tuple(place) if boxes else (),
        has_image=image, has_report=bool(report), sex="", age=float("nan"), source="test", licence="", terms="own",
        language="en", extractor="", transform="grey8@1")


def world(n=60, seed=0):
    """Studies with none, one or two findings."""
    rng = np.random.default_rng(seed)
    sets = [(), ("Nodule",), ("Cardiomegaly",), ("Pleural Effusion",), ("Nodule", "Pleural Effusion")]
    return [record(i, sets[i % 5], subject=f"subject{rng.integers(0, n // 2)}") for i in range(n)]


class Oracle:
    """Reads the findings off the pixels and off the words; `noise` blurs the image side."""

    grid = (4, 4)
    image_size = SIZE
    transform = "letterbox@1"

    def __init__(self, noise=0.0, sign=1.0):
        self.noise, self.sign, self.batches = noise, sign, []

    def images(self, images):
        assert images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE)
        self.batches.append(("images", len(images)))
        patch = images.reshape(-1, 4, SIZE // 4, 4, SIZE // 4).mean((2, 4)).reshape(len(images), 16)
        channels = np.stack([np.abs(patch - 60 * (1 + c)) < 10 for c in range(3)], -1).astype(np.float32)
        if self.noise:
            rng = np.random.default_rng(int(images.astype(np.int64).sum()))
            channels += rng.normal(0, self.noise, channels.shape).astype(np.float32)
        present = channels.max(1) - 0.5
        return {"embedding": present * self.sign, "patches": channels * self.sign}

    def texts(self, texts, phrases):
        self.batches.append(("texts", len(texts)))
        out = np.zeros((len(texts), 3), np.float32)
        for i, (text, parts) in enumerate(zip(texts, phrases, strict=True)):
            for phrase in parts or (text,):
                lower = phrase.lower()
                denied = lower.startswith(("no ", "normal", "there is no")) or " not " in lower or "normal" in lower
                for c, name in enumerate(LABELS):
                    if WORDS[name] in lower or (name == "Cardiomegaly" and "card" in lower):
                        out[i, c] += -1 if denied else 1
            if text.startswith("Findings"):  # A report: what it does not state is absent.
                out[i] = np.where(out[i] > 0, 1, -1)
        return {"embedding": out, "query": out}


__all__ = ["LABELS", "MISSING", "Oracle", "record", "world"]
