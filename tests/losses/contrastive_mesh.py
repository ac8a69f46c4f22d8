"""Compares losses over eight devices with the dense oracle, and prints the name of each that agrees.

A mesh whose devices divide the rows, with one chunk per device, and one whose devices do not, with several.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lgdea_jax.losses import contrastive
from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.methods.lgdea_pairs import anchor_loss, phrase_loss
from lgdea_jax.runtime import sharding
from tests.losses import dense
from tests.losses.test_contrastive import as_jax, assert_close, features, product
from tests.losses.test_positives import phrases


def evaluated(loss, arrays, rest, **options):
    """Value and gradients of a loss of phrases."""
    return jax.jit(jax.value_and_grad(lambda *arrays: loss(*arrays, *rest, temperature=0.2, **options),
                                      tuple(range(len(arrays)))))(*arrays)


def main():
    """Runs both meshes."""
    for axes, count, rows in (({"data": 8, "fsdp": 1}, 32, 8), ({"data": 4, "fsdp": 2}, 37, 3)):
        chunks = Chunks(rows, sharding.make_mesh(**axes))
        x, y, own = dense.unit_rows(0, count), dense.unit_rows(1, count), features(2, count)
        w, everything = own["left"] @ own["right"].T, np.ones(count, bool)
        options = {"similarity": product, "image_features": jax.tree.map(jnp.float32, own), "chunks": chunks}
        softmax = jax.jit(jax.value_and_grad(lambda x, y, s, options=options: contrastive.soft_contrastive(
            x, y, s, own_share=0.2, **options), argnums=(0, 1, 2)))
        expected = dense.softmax(x, y, 8.0, dense.soft_targets(w, 0.2, everything),
                                 dense.soft_targets(w.T, 0.2, everything), everything, everything)
        assert_close(softmax(*as_jax(x, y, 8.0)), (expected[0], expected[1:]))
        print("softmax")
        sigmoid = jax.jit(jax.value_and_grad(lambda x, y, s, b, options=options: contrastive.sigmoid_contrastive(
            x, y, s, b, **options), argnums=(0, 1, 2, 3)))
        expected = dense.sigmoid(x, y, 8.0, -3.0, w, everything, everything)
        assert_close(sigmoid(*as_jax(x, y, 8.0, -3.0)), (expected[0], expected[1:]))
        print("sigmoid")
        np.testing.assert_array_equal(contrastive.best_text(*as_jax(x, y), chunks), np.argmax(x @ y.T, axis=1))
        print("best_text")
        z, patches, *rest = map(jnp.asarray, phrases(3, reports=count))
        for loss, arrays, sharpness in ((anchor_loss, (z,), {}), (phrase_loss, (z, patches), {"sharpness": 2.0})):
            whole, tiles = (evaluated(loss, as_jax(*arrays), rest, chunks=some, **sharpness) for some in (None, chunks))
            assert_close(tiles, whole)
            print(loss.__name__)


if __name__ == "__main__":
    main()
