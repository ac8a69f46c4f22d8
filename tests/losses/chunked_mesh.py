"""Compares losses in chunks over eight devices with the materialised ones on one; prints a line "equal NAME" each."""

import jax
import jax.numpy as jnp
import numpy as np

from lgdea_jax.losses import chunked, contrastive
from lgdea_jax.methods import _rows
from lgdea_jax.runtime import sharding
from tests.losses.test_chunked import rows, same


def main():
    """For two meshes, a batch that the devices divide and one that they do not."""
    for axes in ({"data": 4, "fsdp": 2}, {"data": 8, "fsdp": 1}):
        mesh = sharding.make_mesh(**axes)
        for count in (32, 37):
            x, y = jnp.asarray(rows(0, count), jnp.float32), jnp.asarray(rows(1, count), jnp.float32)
            ids = jnp.arange(count) // 2
            chunks = chunked.Chunks(3, mesh)
            positives = ids[:, None] == ids[None, :]
            pairs = {
                "softmax": (
                    lambda x, y, s, c=chunks, i=ids: chunked.soft_contrastive(
                        x, y, s, similarity=same, image_features=i, chunks=c),
                    lambda x, y, s, p=positives: contrastive.soft_contrastive(x, y, s, _rows.row_targets(p))),
                "sigmoid": (
                    lambda x, y, s, c=chunks, i=ids: chunked.sigmoid_contrastive(
                        x, y, s, -3.0, similarity=same, image_features=i, chunks=c),
                    lambda x, y, s, p=positives: contrastive.sigmoid_contrastive(x, y, s, -3.0, targets=p)),
            }
            for name, (ours, whole) in pairs.items():
                results = [jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(x, y, jnp.float32(8.0))
                           for f in (ours, whole)]
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)
                print("equal", name, axes, count)
            best = chunked.best_text(x, y, chunks)
            np.testing.assert_array_equal(best, np.argmax(np.asarray(x) @ np.asarray(y).T, axis=1))


if __name__ == "__main__":
    main()
