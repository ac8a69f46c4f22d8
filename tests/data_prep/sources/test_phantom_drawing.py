"""Phantom pictures: boxes at every size, the side convention, and that findings show where their boxes are."""

import collections

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_prep.synthetic.random_stream import RandomStream
from data_prep.synthetic.xray.distractors import burn
from data_prep.synthetic.xray.drawing import render
from data_prep.synthetic.xray.findings import sample_scene
from data_prep.synthetic.xray.source import PhantomOptions, PhantomSource
from data_prep.synthetic.xray.world import FINDINGS, Distractor

COUNT = 900


@pytest.fixture(scope="module")
def world():
    source = PhantomSource(PhantomOptions(train=COUNT))
    return source, [source.scene(i) for i in range(COUNT)], [source[i].images[0] for i in range(COUNT)]


def shrink(image, size):
    step = image.shape[0] // size
    return image.reshape(size, step, size, step).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [128, 256, 512])
def test_a_study_looks_the_same_at_every_size(size):
    small, large = (PhantomSource(PhantomOptions(size=s, train=30)) for s in (64, size))
    for i in range(30 if size < 512 else 8):
        a, b = small[i].images[0], large[i].images[0]
        assert np.corrcoef(a.pixels.ravel(), shrink(b.pixels, 64).ravel())[0, 1] > 0.96
        assert [box.finding for box in a.boxes] == [box.finding for box in b.boxes]
        for p, q in zip(a.boxes, b.boxes):
            relative = np.array([p.x, p.y, p.x + p.w, p.y + p.h]) / 64
            assert np.abs(relative - np.array([q.x, q.y, q.x + q.w, q.y + q.h]) / size).max() < 2.2 / 64
        assert small[i].report == large[i].report and small[i].labels == large[i].labels


def test_image_left_is_patient_right(world):
    _, scenes, images = world
    seen = collections.Counter()
    for scene, image in zip(scenes, images):
        for lesion in scene.lesions:
            centres = [(box.x + box.w / 2) / 64 for box in image.boxes if box.finding == lesion.finding]
            if lesion.side == "right":
                assert max(centres) < 0.5
            elif lesion.side == "left":
                assert min(centres) > 0.5
            elif lesion.side == "bilateral":
                assert len(centres) == 2 and min(centres) < 0.5 < max(centres)
            seen[lesion.side] += 1
    assert min(seen["left"], seen["right"], seen["bilateral"]) > 50


def test_zones_go_down_the_image(world):
    _, scenes, images = world
    heights = collections.defaultdict(list)
    for scene, image in zip(scenes, images):
        for lesion in scene.lesions:
            if lesion.finding in ("Nodule", "Mass", "Consolidation", "Granuloma", "Atelectasis"):
                heights[lesion.zone] += [(b.y + b.h / 2) / 64 for b in image.boxes if b.finding == lesion.finding]
    assert np.mean(heights["upper"]) + 0.1 < np.mean(heights["mid"]) < np.mean(heights["lower"]) - 0.08
    assert max(heights["upper"]) < min(heights["retrocardiac"])


def test_severity_changes_the_size(world):
    _, scenes, images = world
    areas = collections.defaultdict(list)
    for scene, image in zip(scenes, images):
        for lesion in scene.lesions:
            areas[lesion.finding, lesion.severity] += [b.w * b.h for b in image.boxes if b.finding == lesion.finding]
    for finding in ("Nodule", "Mass", "Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Hernia", "Atelectasis"):
        assert np.mean(areas[finding, "severe"]) > 1.15 * np.mean(areas[finding, "mild"])


def test_the_box_is_where_the_picture_changes():
    """Against the picture of the same scene without the lesion: the change is in the box and hardly outside."""
    checked = collections.Counter()
    for index in range(400):
        scene, _ = sample_scene(seed=5, world=0, index=index, normal_share=0.0, max_findings=1, repeat_share=0.0,
                                distractors=True)
        lesion = scene.lesions[0]
        if lesion.finding in ("Cardiomegaly", "Edema", "Emphysema") or checked[lesion.finding] >= 6:
            continue  # These change the anatomy everywhere.
        bare = type(scene)(scene.anatomy, scene.pose, (), scene.distractors, scene.prior)
        (with_it, boxes), (without, _) = (render(x, 128, RandomStream(1)) for x in (scene, bare))
        change = np.abs(with_it.astype(float) - without)
        inside = np.zeros((128, 128), bool)
        for x, y, w, h in boxes[0]:
            inside[int(y * 128): int(np.ceil((y + h) * 128)), int(x * 128): int(np.ceil((x + w) * 128))] = True
        assert change[inside].sum() > 0.75 * change.sum(), lesion
        assert change[inside].mean() > 1.5, lesion
        checked[lesion.finding] += 1
    assert len(checked) == 9 and min(checked.values()) >= 4


def _statistics(image, box):
    """Simple contrasts at a box: centre against ring, brightest, vertical roughness, dark column, bright band."""
    x0, y0 = max(int(box.x), 0), max(int(box.y), 0)
    x1, y1 = min(int(np.ceil(box.x + box.w)), 64), min(int(np.ceil(box.y + box.h)), 64)
    inside = image[y0:y1, x0:x1]
    around = image[max(y0 - 3, 0): y1 + 3, max(x0 - 3, 0): x1 + 3]
    ring = (around.sum() - inside.sum()) / max(around.size - inside.size, 1)
    centre = inside[inside.shape[0] // 4: -(inside.shape[0] // 4) or None, inside.shape[1] // 4:
                    -(inside.shape[1] // 4) or None]
    spread = max(float(np.std(image)), 1.0)
    column = (around[:, :-2] + around[:, 2:] - 2 * around[:, 1:-1]).max()  # A pixel darker than both neighbours.
    quarter = max(inside.shape[0] // 4, 1)
    band = inside[quarter:-quarter].mean() - (inside[0].mean() + inside[-1].mean()) / 2
    return np.array([centre.mean() - ring, inside.max() - np.median(around), np.abs(np.diff(inside, axis=0)).mean(),
                     column, band]) / spread


@pytest.mark.parametrize(("finding", "statistic", "least"), [
    ("Nodule", 0, 0.8), ("Mass", 0, 0.85), ("Consolidation", 0, 0.85), ("Granuloma", 1, 0.95), ("Hernia", 2, 0.85),
    ("Atelectasis", 4, 0.9), ("Fracture", 3, 0.75)])
def test_findings_can_be_seen_by_hand_made_contrast(world, finding, statistic, least):
    """The contrast at the box in images that have the finding, against the same place in images that do not."""
    _, scenes, images = world
    present, absent = [], []
    others = [i for i in range(COUNT) if finding not in scenes[i].present]
    rng = np.random.default_rng(0)
    for scene, image in zip(scenes, images):
        if finding in scene.present:
            box = next(b for b in image.boxes if b.finding == finding)
            present.append(_statistics(image.pixels.astype(float), box)[statistic])
            for other in rng.choice(others, 3):
                absent.append(_statistics(images[other].pixels.astype(float), box)[statistic])
    auc = roc_auc_score([1] * len(present) + [0] * len(absent), present + absent)
    assert auc > least


def test_global_findings_show_in_the_lungs(world):
    _, scenes, images = world
    pixels = np.stack([image.pixels for image in images]).astype(float)
    lungs = (pixels[:, 20:38, 14:24].mean(axis=(1, 2)) + pixels[:, 20:38, 40:50].mean(axis=(1, 2))) / 2
    values = lungs / pixels[:, 20:40, 30:34].mean(axis=(1, 2))  # Against the mediastinum.
    has = {name: np.array([name in scene.present for scene in scenes]) for name in FINDINGS}
    assert roc_auc_score(has["Edema"], values) > 0.8
    assert roc_auc_score(has["Emphysema"], -values) > 0.8


def test_pneumothorax_rim_is_darker_than_the_other_side():
    """Lateral third of the box against the mirrored place: air without vessels is darker."""
    source = PhantomSource(PhantomOptions(train=COUNT))
    darker = []
    for i in range(COUNT):
        scene = source.scene(i)
        lesion = next((x for x in scene.lesions if x.finding == "Pneumothorax"), None)
        if lesion is None or len(scene.lesions) > 1:
            continue
        image = source[i].images[0]
        box = next(b for b in image.boxes if b.finding == "Pneumothorax")
        pixels = image.pixels.astype(float)
        rows = slice(int(box.y + 0.15 * box.h), int(box.y + 0.6 * box.h))
        at = box.x + (0.75 if lesion.side == "left" else 0.1) * box.w
        cols = np.arange(int(at), int(at + 0.15 * box.w) + 1)
        middle = 64 * (0.5 + scene.pose.shift[0])
        mirrored = np.clip((2 * middle - 1 - cols).round().astype(int), 0, 63)
        darker.append(pixels[rows][:, cols].mean() < pixels[rows][:, mirrored].mean())
    assert len(darker) > 20 and np.mean(darker) > 0.7


def test_side_markers_stand_on_their_side_and_read_left_to_right():
    for side, letter, half in ((1, "L", slice(32, 64)), (-1, "R", slice(0, 32))):
        image = np.zeros((64, 64), np.float32)
        burn(image, Distractor("marker", side, letter, (0.05, 0.05, 0.11)))
        assert image[:, half].sum() == pytest.approx(image.sum()) and image.sum() > 3
        _, cols = np.nonzero(image > 0.3)
        assert image[:, cols.min()].sum() > 1.5 * image[:, cols.max()].sum()  # L and R have their stem on the left.


def test_markers_in_the_world_follow_the_convention(world):
    _, scenes, _ = world
    markers = [item for scene in scenes for item in scene.distractors if item.kind == "marker"]
    assert {(item.side, item.text) for item in markers} == {(1, "L"), (-1, "R")}


def test_distractors_do_not_depend_on_findings(world):
    _, scenes, _ = world
    for kind in ("pacemaker", "wires", "marker", "clips"):
        has = np.array([any(item.kind == kind for item in scene.distractors) for scene in scenes])
        normal = np.array([not scene.lesions for scene in scenes])
        a, b = has[normal].mean(), has[~normal].mean()
        error = np.sqrt(has.mean() * (1 - has.mean()) * (1 / normal.sum() + 1 / (~normal).sum()))
        assert abs(a - b) < 4 * error


def test_anatomy_varies(world):
    _, scenes, images = world
    pixels = np.stack([image.pixels for image in images]).astype(float)
    assert pixels.std(axis=0).mean() > 15
    ratios = np.array([scene.anatomy.ctr for scene in scenes])
    enlarged = np.array(["Cardiomegaly" in scene.present for scene in scenes])
    assert ratios[~enlarged].max() < 0.5 < 0.53 < ratios[enlarged].min()
