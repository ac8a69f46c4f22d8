"""The dense oracle: contrastive losses and their gradients in float64, written out over whole matrices of scores."""

import numpy as np
from scipy.special import expit, log_softmax


def unit_rows(seed, count, width=6):
    """Random rows of unit norm."""
    x = np.random.default_rng(seed).normal(size=(count, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def soft_targets(w, own_share, columns):
    """own_share I + (1 - own_share) W / its row sums over valid columns; with a share, empty rows are one-hot."""
    w = np.where(columns, w, 0.0)
    mass = w.sum(1, keepdims=True)
    shares = np.divide(w, mass, out=np.zeros_like(w), where=mass > 0)
    eye = np.eye(*w.shape)
    return np.where(mass > 0, own_share * eye + (1 - own_share) * shares, eye if own_share else 0.0)


def softmax(x, y, scale, targets, targets_text, image_mask, text_mask):
    """(loss, gradients of x, y and scale); targets [I, R] and targets_text [R, I], rows without mass are left out."""
    slope, loss = np.zeros((len(x), len(y))), 0.0
    if image_mask.any() and text_mask.any():
        for rows, columns, target, turn in ((image_mask, text_mask, targets, False),
                                            (text_mask, image_mask, targets_text, True)):
            scores = scale * (y @ x.T if turn else x @ y.T)
            kept = rows & (target[:, columns].sum(1) > 0)
            logs = log_softmax(scores[kept][:, columns], axis=1)
            loss -= 0.5 * (target[kept][:, columns] * logs).sum() / max(kept.sum(), 1)
            part = np.zeros_like(scores)
            mass = target[kept][:, columns].sum(1, keepdims=True)
            part[np.ix_(kept, columns)] = 0.5 * (mass * np.exp(logs) - target[kept][:, columns]) / max(kept.sum(), 1)
            slope += part.T if turn else part
    return loss, scale * slope @ y, scale * slope.T @ x, (slope * (x @ y.T)).sum()


def sigmoid(x, y, scale, bias, targets, image_mask, text_mask):
    """(loss, gradients of x, y, scale and bias)."""
    logits = scale * x @ y.T + bias
    share = image_mask[:, None] * text_mask / max(image_mask.sum(), 1)
    loss = -(share * (targets * np.log(expit(logits)) + (1 - targets) * np.log(expit(-logits)))).sum()
    slope = share * (expit(logits) - targets)
    return loss, scale * slope @ y, scale * slope.T @ x, (slope * (x @ y.T)).sum(), slope.sum()
