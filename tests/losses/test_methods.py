"""Every loss term of every method: its gradient against finite differences; unpaired terms against plain formulas."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, rel_entr, softmax

from lgdea_jax import cli, experiment
from lgdea_jax.methods import lgdea, local
from tests.losses.gradients import check_gradients

PAIRS, IMAGES, REPORTS, PHRASES, TOKENS, PATCHES, WIDTH, PROTOTYPES, LESIONS, LABELS = 4, 3, 3, 2, 5, 9, 4, 5, 2, 3


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def batch(seed=0, *, text="phrases"):
    """(raw arrays to differentiate by, function of them that makes the outputs, rows, aux) of a small random batch."""
    rng = np.random.default_rng(seed)
    images, reports = PAIRS + IMAGES, PAIRS + REPORTS
    lead = (reports, PHRASES) if text == "phrases" else (reports,)
    raw = {
        "pooled": rng.normal(size=(images, WIDTH)), "patches": rng.normal(size=(images, PATCHES, WIDTH)),
        "lesions": rng.normal(size=(images, LESIONS, WIDTH)), "text": rng.normal(size=(*lead, WIDTH)),
        "tokens": rng.normal(size=(*lead, TOKENS, WIDTH)), "prototypes": rng.normal(size=(PROTOTYPES, WIDTH)),
        "logits": rng.normal(size=(images, LABELS)), "scale": np.asarray(0.7), "bias": np.asarray(-0.3)}
    mask = np.ones((*lead, TOKENS), bool)
    mask[..., 3:] = False

    def outputs(pooled, patches, lesions, text, tokens, prototypes, logits, scale, bias):
        return {"image": {"pooled": unit(pooled), "patches": unit(patches), "lesions": unit(lesions),
                          "features": pooled, "logits": logits},
                "text": {"pooled": unit(text), "tokens": unit(tokens), "mask": jnp.asarray(mask)},
                "prototypes": prototypes, "logit_scale": jnp.exp(scale), "logit_bias": bias}

    weight = np.ones((reports, PHRASES), np.float32)
    weight[:, 1] = rng.integers(0, 2, reports)
    weight[2] = 0.0  # A report without evidence.
    rows = {"num_pairs": PAIRS, "weight": jnp.asarray(weight),
            "finding": jnp.asarray(np.where(weight > 0, rng.integers(0, 3, weight.shape), -1)),
            "normal": jnp.zeros(reports, bool), "study": jnp.asarray([0, 0, 1, 2]),
            "region": jnp.asarray(rng.uniform([-1, -1, 0.4, 0.4], [0.4, 0.4, 1.5, 1.5], (PAIRS, PHRASES, 4))),
            "frame": jnp.asarray(np.eye(2, 3) + rng.uniform(-0.1, 0.1, (PAIRS, 2, 3))),
            "labels": jnp.asarray(rng.integers(-1, 2, (images, LABELS)).astype(np.int8)),
            "image_index": jnp.asarray([*range(PAIRS), 6, 5, 7]), "report_index": jnp.asarray([*range(PAIRS), 7, 4, 5])}
    aux = {}
    for side in ("image", "report"):
        aux[f"{side}_target"] = jnp.asarray(rng.dirichlet(np.ones(PROTOTYPES), 8))
        aux[f"{side}_weight"] = jnp.asarray(np.r_[np.zeros(PAIRS), rng.uniform(0.2, 1, 4)])
    return raw, outputs, rows, aux


def options_of(name):
    """The config's options of a method, all its loss terms, and the text it reads."""
    config = cli.read_config("configs/common.py")
    config.method = name
    options = config.methods[name].to_dict()
    text = options["text"]
    module = importlib.import_module(f"lgdea_jax.methods.{name}")
    takes = {key: value for key, value in options.items() if key not in ("text", "scoring", "weights", "overall_score")}
    return module, takes, text


@pytest.mark.parametrize(("name", "term"), [
    (name, term) for name in experiment.method_names()
    for term in importlib.import_module(f"lgdea_jax.methods.{name}").LOSSES])
def test_gradient_of_every_term(name, term):
    module, options, text = options_of(name)
    raw, outputs, rows, aux = batch(text="phrases" if text == "phrases" else "report")
    free = {**options, "stop_report": False} if "stop_report" in options else options

    def loss(*arrays):
        return module.losses(outputs(*arrays), rows, aux, jnp.asarray(0), terms=(term,), **free)[term]

    if term in ("evid_align", "align", "place"):  # Their text side is a target, which the derivative must not follow.
        fixed = [np.asarray(value) for value in raw.values()]

        def images_only(pooled, patches, lesions):
            return loss(pooled, patches, lesions, *map(jnp.asarray, fixed[3:]))

        check_gradients(images_only, *list(raw.values())[:3])
    else:
        check_gradients(loss, *raw.values())


def test_the_reports_get_no_gradient_from_the_pair_losses_unless_asked():
    raw, outputs, rows, aux = batch()
    _, options, _ = options_of("lgdea")

    def of_text(stop, term):
        def loss(text):
            arrays = {**{k: jnp.asarray(v) for k, v in raw.items()}, "text": text}
            return lgdea.losses(outputs(**arrays), rows, aux, jnp.asarray(0), terms=(term,),
                                **{**options, "stop_report": stop})[term]

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


def test_unpaired_terms_are_zero_before_the_first_refresh_and_read_their_own_rows():
    raw, outputs, rows, aux = batch()
    _, options, _ = options_of("lgdea")
    out = outputs(**{k: jnp.asarray(v) for k, v in raw.items()})

    def terms(aux):
        values = lgdea.losses(out, rows, aux, jnp.asarray(0), terms=lgdea.UNPAIRED, **options)
        return {name: float(value) for name, value in values.items()}

    blank = {name: jnp.zeros_like(value) for name, value in aux.items()}
    assert terms(blank) == dict.fromkeys(lgdea.UNPAIRED, 0.0)
    before = terms(aux)
    assert all(value > 0 for value in before.values())
    # Row 4 of the images and row 6 of the reports are not in this batch.
    elsewhere = {"image_target": 4, "report_target": 6, "image_weight": 4, "report_weight": 6}
    assert terms({name: aux[name].at[row].set(0.1) for name, row in elsewhere.items()}) == before
    inside = {**aux, "image_weight": aux["image_weight"].at[5].set(0.0)}
    assert terms(inside)["evid_image"] < before["evid_image"]


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
