"""The dense oracle: relations as an images x reports matrix in float64, for small numbers of items."""

import numpy as np


def relations(walk_images, seeds, walk_reports, alpha, order):
    """S = (1 - alpha) sum_t alpha^t W_I^t S0 W_R^t."""
    power = np.linalg.matrix_power
    return (1 - alpha) * sum(alpha**t * power(walk_images, t) @ seeds @ power(walk_reports, t)
                             for t in range(order + 1))


def anchor_walk(z):
    """W = Z D^-1 Z^T; an anchor that nobody uses is left out."""
    z = z[:, z.sum(0) > 0]
    return z @ np.diag(1 / z.sum(0)) @ z.T


def seed_matrix(seeds, images, reports):
    """S0 of `Seeds`."""
    out = np.zeros((images, reports))
    np.add.at(out, (np.asarray(seeds.images), np.asarray(seeds.reports)), np.asarray(seeds.weights, np.float64))
    return out


def targets(s, evidence):
    """(S Q / its row sums, row sums), with zeros where there is nothing."""
    related, mass = s @ evidence, s @ evidence.sum(1)
    return np.divide(related, mass[:, None], out=np.zeros_like(related), where=mass[:, None] > 0), mass
