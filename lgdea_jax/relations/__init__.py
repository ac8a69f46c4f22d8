"""Relations of unpaired images and reports: from the pairs, through similar images and similar reports, to both.

LGDEA (arXiv 2602.07540) propagates its seed edges, the pairs, along image-image and report-report similarity; its
formulas are not available to us. Ours, with S0 the seed matrix [N_I, N_R] and W_I, W_R the similarities:

    S = (1 - alpha) sum_{t=0..T} alpha^t W_I^t S0 W_R^t

S is never made: it has images x reports entries. Similarities go through anchors (`anchors`, after Liu et al., ICML
2010): W = Z D^-1 Z^T from soft assignments Z [N, K] to landmarks of instance features, D the column sums of Z. Then
S = (1 - alpha) S0 + Z_I M Z_R^T with M of K x K algebra alone: time O(N K^2), memory O(N K). W is symmetric and its
rows sum to 1. What an unpaired item inherits needs its own row of Z and one K x E array (`landmark_evidence`,
`related_evidence`), so that a training step can ask for the targets of its rows.

rowsum(S), the confidence, is the probability that a walk from an image ends at a seed, at most 1 - alpha^(T+1), and at
most alpha - alpha^(T+1) without a seed of its own. Nothing here is meant to be differentiated.

Large arrays may be split by rows over devices. `shards` is the number of devices; blocks are then cut within each
device's rows. With another `shards` the numbers are the same, and rows travel between devices. Ties between landmarks
are not decided by rounding: the first of equals counts.
"""
