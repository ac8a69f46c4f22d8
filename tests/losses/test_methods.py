"""Every loss term of every method: its gradient against finite differences; values against plain formulas; options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, rel_entr, softmax

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.methods import lgdea, local
from lgdea_jax.methods.table import OBJECTIVES, make_method
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN
from tests.losses.gradients import check_gradients

PAIRS, IMAGES, REPORTS, PHRASES, TOKENS, PATCHES, WIDTH, PROTOTYPES, LESIONS, LABELS = 4, 3, 3, 2, 5, 9, 4, 5, 2, 3


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def batch(seed=0, *, text="phrases"):
    """(raw arrays to differentiate by, function of them that makes the outputs, rows, targets) of a small batch."""
    rng = np.random.default_rng(seed)
    images, reports = PAIRS + IMAGES, PAIRS + REPORTS
    lead = (reports, PHRASES) if text == "phrases" else (reports,)
    raw = {
        "pooled": rng.normal(size=(images, WIDTH)), "patches": rng.normal(size=(images, PATCHES, WIDTH)),
        "lesions": rng.normal(size=(images, LESIONS, WIDTH)), "text": rng.normal(size=(*lead, WIDTH)),
        "tokens": rng.normal(size=(*lead, TOKENS, WIDTH)), "prototypes": rng.normal(size=(PROTOTYPES, WIDTH)),
        "logits": rng.normal(size=(images, LABELS)), "scale": np.asarray(0.7), "bias": np.asarray(-0.3)}
    raw["text_logits"] = np.random.default_rng(seed + 1).normal(size=(*lead, LABELS))
    mask = np.ones((*lead, TOKENS), bool)
    mask[..., 3:] = False

    def outputs(pooled, patches, lesions, text, tokens, prototypes, logits, scale, bias, text_logits):
        return {"image": {"pooled": unit(pooled), "patches": unit(patches), "lesions": unit(lesions),
                          "features": pooled, "latents": pooled, "logits": logits},
                "text": {"pooled": unit(text), "latents": text, "logits": text_logits, "tokens": unit(tokens),
                         "mask": jnp.asarray(mask)},
                "prototypes": prototypes, "logit_scale": jnp.exp(scale), "logit_bias": bias}

    weight = np.ones((reports, PHRASES), np.float32)
    weight[:, 1] = rng.integers(0, 2, reports)
    weight[2] = 0.0  # A report without evidence.
    rows = {"num_pairs": PAIRS, "weight": jnp.asarray(weight),
            "finding": jnp.asarray(np.where(weight > 0, rng.integers(0, 3, weight.shape), -1)),
            "normal": jnp.zeros(reports, bool), "study": jnp.asarray([0, 0, 1, 2]),
            "labels": jnp.asarray(rng.integers(-1, 2, (images, LABELS)).astype(np.int8))}
    targets = {}
    for side, count in (("image", IMAGES), ("report", REPORTS)):
        targets[f"{side}_target"] = jnp.asarray(rng.dirichlet(np.ones(PROTOTYPES), count))
        targets[f"{side}_weight"] = jnp.asarray(rng.uniform(0.2, 1, count))
    return raw, outputs, rows, targets


PRESETS = {name: options.to_dict() for name, options in cli.read_config("configs/common.py").methods.items()}


def made(raw, outputs):
    """The outputs of `batch` as arrays."""
    return outputs(**{name: jnp.asarray(value) for name, value in raw.items()})


def method_of(name, *terms, **options):
    """The preset with these terms at weight 1 (its own weights without any), and other options."""
    weights = dict.fromkeys(terms, 1.0) if terms else PRESETS[name]["weights"]
    return make_method(name, {**PRESETS[name], "weights": weights, **options})


@pytest.mark.parametrize(("name", "term"), [
    (name, term) for name, options in sorted(PRESETS.items()) for term in OBJECTIVES[options["objective"]].loss_names])
def test_gradient_of_every_term(name, term):
    free = {"stop_report": False} if "stop_report" in PRESETS[name] else {}
    method = method_of(name, term, **free)
    raw, outputs, rows, targets = batch(text="phrases" if method.text == "phrases" else "report")

    def loss(*arrays):
        return method.losses(outputs(*arrays), rows, targets)[term]

    if term in ("evid_align", "align"):  # Their text side is a target, which the derivative must not follow.
        fixed = [np.asarray(value) for value in raw.values()]

        def images_only(pooled, patches, lesions):
            return loss(pooled, patches, lesions, *map(jnp.asarray, fixed[3:]))

        check_gradients(images_only, *list(raw.values())[:3])
    else:
        check_gradients(loss, *raw.values())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_only_terms_with_a_weight_are_computed(name):
    raw, outputs, rows, targets = batch(text="phrases" if PRESETS[name]["text"] == "phrases" else "report")
    out = made(raw, outputs)
    names = OBJECTIVES[PRESETS[name]["objective"]].loss_names
    for term in names:
        method = make_method(name, {**PRESETS[name], "weights": {**dict.fromkeys(names, 0.0), term: 0.5}})
        assert set(method.losses(out, rows, targets)) == {term}
    assert set(method_of(name, *names).losses(out, rows, targets)) == set(names)


def test_presets_are_the_methods_that_they_are():
    methods = {name: make_method(name, options) for name, options in PRESETS.items()}
    assert {name: (type(method).__name__, method.text, method.scoring, method.streams, method.has_memory)
            for name, method in methods.items()} == {
        "clip": ("Clip", "report", "contrast", ("pairs",), False),
        "clip_evidence": ("Clip", "evidence", "positive", ("pairs",), False),
        "clip_evidence_soft": ("ClipEvidenceSoft", "evidence", "positive", ("pairs",), False),
        "clip_sigmoid": ("ClipSigmoid", "report", "contrast", ("pairs",), False),
        "local": ("Local", "report", "contrast", ("pairs",), False),
        "supervised": ("Supervised", "", "positive", ("pairs", "images"), False),
        "supervised_text": ("SupervisedText", "report", "positive", ("pairs",), False),
        "clip_supervised": ("ClipSupervised", "report", "pair", ("pairs",), False),
        "lgdea_pairs": ("LgdeaPairs", "phrases", "positive", ("pairs", "reports"), False),
        "lgdea": ("Lgdea", "phrases", "positive", ("pairs", "images", "reports"), True),
        "mean_teacher": ("Lgdea", "phrases", "positive", ("pairs", "images", "reports"), True),
        "oracle": ("Lgdea", "phrases", "positive", ("pairs", "images", "reports"), True)}
    assert [methods[name].targets for name in ("lgdea", "mean_teacher", "oracle")] == ["relations", "teacher", "truth"]


@pytest.mark.parametrize(("name", "options", "message"), [
    ("clip", {"objective": "clpi"}, "unknown objective of method clip 'clpi' (did you mean 'clip'?)"),
    ("local", {"word_temprature": 1.0}, "the option 'word_temprature' (did you mean 'word_temperature'?)"),
    ("clip", {"chunks": None}, "the method clip does not take the option 'chunks'"),
    ("local", {"word_temperature": ...}, "the method local needs the option config.methods.local.word_temperature"),
    ("lgdea", {"weights": {"recc": 1.0}}, "unknown loss of method lgdea 'recc' (did you mean 'rec'?)"),
    ("lgdea_pairs", {"weights": {"evid_image": 1.0}}, "unknown loss of method lgdea_pairs 'evid_image'"),
    ("clip", {"weights": {"contrastive": 0.0}}, "weights are all 0: nothing to train on"),
    ("oracle", {"targets": "truht"}, "(did you mean 'truth'?)"),
    ("supervised", {"uncertain": "ignored"}, "(did you mean 'ignore'?)"),
    ("supervised_text", {"text": "phrases"}, "one text per label, report or evidence"),
    ("clip_supervised", {"text": "phrases"}, "one text per image, report or evidence"),
    ("clip_supervised", {"similarity": "cosin"}, "(did you mean 'cosine'?)")])
def test_wrong_options(name, options, message):
    options = {key: value for key, value in {**PRESETS[name], **options}.items() if value is not ...}
    with pytest.raises(UserError) as error:
        make_method(name, options)
    assert message in str(error.value)


def log_softmax(x, axis):
    return x - logsumexp(x, axis=axis, keepdims=True)


def infonce(scores, study, valid):
    """Both directions over the valid rows; rows of one study are positives in equal shares."""
    scores, same = scores[valid][:, valid], (study[:, None] == study[None, :])[valid][:, valid].astype(float)
    return -np.mean([np.sum(same / same.sum(1, keepdims=True) * log_softmax(side, 1), axis=1)
                     for side in (scores, scores.T)])


@pytest.mark.parametrize(("name", "valid"), [("clip", [0, 1, 2, 3]), ("clip_evidence", [0, 1, 3])])
def test_contrastive_is_infonce_over_studies(name, valid):
    """Report 2 has no evidence: as evidence text it is empty, as a report it is not."""
    raw, outputs, rows, targets = batch(text="report")
    image, text = (np.asarray(unit(raw[side]))[:PAIRS] for side in ("pooled", "text"))
    expected = infonce(np.exp(0.7) * image @ text.T, np.array([0, 0, 1, 2]), valid)
    found = method_of(name).losses(made(raw, outputs), rows, targets)["contrastive"]
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_clip_supervised_by_plain_formulas(similarity):
    """Dot products have neither norms nor a temperature; both sides have the loss of the labels."""
    raw, outputs, rows, targets = batch(text="report")
    image, text = raw["pooled"][:PAIRS], raw["text"][:PAIRS]
    if similarity == "cosine":
        image, text = np.exp(0.7) * np.asarray(unit(image)), np.asarray(unit(text))
    method = method_of("clip_supervised", similarity=similarity)
    found = method.losses(made(raw, outputs), rows, targets)
    expected = infonce(image @ text.T, np.array([0, 0, 1, 2]), list(range(PAIRS)))
    assert float(found["contrastive"]) == pytest.approx(expected, rel=1e-5)
    labels = np.asarray(rows["labels"])[:PAIRS]
    known = np.isin(labels, (POSITIVE, NEGATIVE))
    assert known.any() and not known.all()
    for term, logits in (("image_labels", raw["logits"]), ("text_labels", raw["text_logits"])):
        losses = np.logaddexp(0, np.where(labels == POSITIVE, -1, 1) * logits[:PAIRS])
        assert float(found[term]) == pytest.approx(losses[known].mean(), rel=1e-5)
    raw["pooled"] = raw["pooled"] * 3  # Cosines do not see it.
    again = method.losses(made(raw, outputs), rows, targets)["contrastive"]
    assert (abs(float(again) - float(found["contrastive"])) < 1e-4) == (similarity == "cosine")


@pytest.mark.parametrize("name", ["supervised", "supervised_text"])
@pytest.mark.parametrize(("uncertain", "target"), [("ignore", None), ("positive", 1), ("negative", 0), ("soft", 0.5)])
def test_what_an_uncertain_label_counts_as(name, uncertain, target):
    raw, outputs, rows, targets = batch(text="report")
    labels = np.random.default_rng(3).permuted(
        np.repeat([POSITIVE, NEGATIVE, UNCERTAIN, MISSING], 6)[:21].reshape(7, LABELS))
    rows["labels"] = jnp.asarray(labels.astype(np.int8))
    logits = raw["logits" if name == "supervised" else "text_logits"]
    found = method_of(name, uncertain=uncertain).losses(made(raw, outputs), rows, targets)["labels"]
    wanted = np.select([labels == POSITIVE, labels == UNCERTAIN], [1.0, np.nan if target is None else target], 0.0)
    counted = (labels != MISSING) & ~np.isnan(wanted)
    losses = wanted * np.logaddexp(0, -logits) + (1 - wanted) * np.logaddexp(0, logits)
    assert float(found) == pytest.approx(losses[counted].mean(), rel=1e-5)


def test_the_reports_get_no_gradient_from_the_pair_losses_unless_asked():
    raw, outputs, rows, targets = batch()

    def of_text(stop, term):
        method = method_of("lgdea", term, stop_report=stop)

        def loss(text):
            arrays = {**{k: jnp.asarray(v) for k, v in raw.items()}, "text": text}
            return method.losses(outputs(**arrays), rows, targets)[term]

        return np.abs(np.asarray(jax.grad(loss)(jnp.asarray(raw["text"])))).max()

    for term in ("evid_pair", "evid_lesion", "align"):
        assert of_text(True, term) == 0.0 and of_text(False, term) > 1e-4, term


def test_weighted_pair_loss_is_a_mean_of_weighted_divergences():
    rng = np.random.default_rng(1)
    target, image = rng.dirichlet(np.ones(4), 5), rng.dirichlet(np.ones(4), 5)
    target[0] = [0, 1, 0, 0]
    weight = np.array([1.0, 0.0, 0.5, 0.25, 1.0])
    expected = np.sum(weight * rel_entr(target, image).sum(1)) / 5
    np.testing.assert_allclose(lgdea.weighted_pair_loss(target, np.log(image), weight), expected, rtol=1e-5)
    assert lgdea.weighted_pair_loss(np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0)) == 0
    moved = jax.grad(lambda t: lgdea.weighted_pair_loss(t, jnp.log(image), weight))(jnp.asarray(target))
    assert np.all(np.asarray(moved) == 0)


def memory_terms(out, rows, targets):
    """{term: value} of the unpaired terms, each at weight 1."""
    method = method_of("lgdea", *lgdea.UNPAIRED)
    return {name: float(value) for name, value in method.losses(out, rows, targets).items()}


def test_unpaired_terms_are_zero_without_targets_or_weights():
    raw, outputs, rows, targets = batch()
    out = made(raw, outputs)
    blank = {name: jnp.zeros_like(value) for name, value in targets.items()}
    for none in ({}, blank):
        assert memory_terms(out, rows, none) == dict.fromkeys(lgdea.UNPAIRED, 0.0)
    before = memory_terms(out, rows, targets)
    assert all(value > 0 for value in before.values())
    less = {**targets, "image_weight": targets["image_weight"].at[1].set(0.0)}
    assert memory_terms(out, rows, less)["evid_image"] < before["evid_image"]
    alone = {name: value for name, value in targets.items() if name.startswith("image")}
    assert memory_terms(out, rows, alone) == {**before, "evid_report": 0.0}


def test_unpaired_terms_are_those_of_each_item():
    """Item by item in NumPy: the targets are of the unpaired rows, which come after the pairs."""
    raw, outputs, rows, targets = batch()
    options = PRESETS["lgdea"]
    patches, phrases = (np.asarray(unit(raw[name])) for name in ("patches", "text"))
    image, report = [], []
    for number, patch in enumerate(patches[PAIRS:]):
        pooled = logsumexp(patch @ raw["prototypes"].T / options["patch_temperature"], axis=0)
        q = np.exp(log_softmax(pooled, 0))
        image.append(targets["image_weight"][number] * rel_entr(np.asarray(targets["image_target"][number]), q).sum())
    for number, (phrase, weight) in enumerate(zip(phrases[PAIRS:], np.asarray(rows["weight"])[PAIRS:], strict=True)):
        p = softmax(phrase @ raw["prototypes"].T / options["text_temperature"], axis=1)
        q = np.maximum((weight[:, None] * p).sum(0) / weight.sum(), 1e-8)
        report.append(targets["report_weight"][number] * rel_entr(
            np.asarray(targets["report_target"][number]), q).sum())
    found = memory_terms(made(raw, outputs), rows, targets)
    assert found["evid_image"] == pytest.approx(np.mean(image), rel=1e-4)
    assert found["evid_report"] == pytest.approx(np.mean(report), rel=1e-4)


@pytest.mark.parametrize("count", [3, 6], ids=["fewer patches than dimensions", "more"])
def test_word_region_scores_are_those_of_a_double_loop(count):
    rng = np.random.default_rng(2)
    words, patches = np.asarray(unit(rng.normal(size=(3, 5, 4)))), np.asarray(unit(rng.normal(size=(2, count, 4))))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    expected = np.zeros((2, 3))
    for i in range(2):
        for r in range(2):
            matches = []
            for word in words[r][mask[r]]:
                context = softmax(patches[i] @ word / 0.3) @ patches[i]
                matches.append(context @ word / np.linalg.norm(context))
            expected[i, r] = 0.2 * (logsumexp(np.array(matches) / 0.2) - np.log(len(matches)))
    scores = local.word_region_scores(words, mask, patches, attention_temperature=0.3, word_temperature=0.2)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 1e-5, 1e-4, 1e-3])
def test_word_region_scores_stay_cosines(tilt):
    """Of two patches that all but cancel the word attends to the rest, whose length is lost in rounding."""
    word = jnp.asarray([[[1.0, 0.0, 0.0]]])

    def score(patches):
        return local.word_region_scores(word, jnp.ones((1, 1), bool), unit(patches)[None],
                                        attention_temperature=0.3, word_temperature=0.2)[0, 0]

    value, gradient = jax.value_and_grad(score)(jnp.asarray([[tilt, 1.0, 0.0], [tilt, -1.0, 0.0]]))
    assert abs(float(value)) <= 1 + 1e-6 and np.isfinite(gradient).all()
