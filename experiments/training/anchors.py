"""Anchors that fit the data: the check, and k-means where it fails.

The idea is YOLOv5's AutoAnchor: a box can be learned if some anchor's sides are within a ratio of 4 of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data import DetectionSet
from models.errors import InputError
from models.grammar import Config

RATIO = 4.0  # of the loss, which assigns boxes to anchors by it
ENOUGH = 0.98  # best possible recall that needs no other anchors
_MIN_SIDE = 2.0  # pixels: smaller boxes are not learned


def box_sizes(split: DetectionSet) -> np.ndarray:
    """(n, 2) width and height of every box, in pixels of the letterboxed image."""
    sizes = [
        labels[:, 3:5] * np.array([w, h]) * (split.imgsz / max(h, w))
        for labels, (h, w) in zip(split.labels, split.shapes, strict=True)
    ]
    return np.concatenate([np.zeros((0, 2)), *sizes])


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray, ratio: float = RATIO) -> float:
    """Share of boxes (n, 2) that have an anchor (k, 2) with both sides within `ratio` of theirs."""
    quotient = sizes[:, None] / anchors[None]
    worst = np.maximum(quotient, 1 / quotient).max(2)  # (n, k)
    return float((worst.min(1) < ratio).mean())


def kmeans_anchors(sizes: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k anchors (k, 2) in pixels, by area.

    k-means on the logarithms of the sides, since what counts is their ratio. Fewer different boxes than anchors: the
    boxes are spread by octaves around themselves.
    """
    from sklearn.cluster import KMeans

    large = sizes[(sizes > _MIN_SIDE).all(1)]
    points = np.log(large if len(large) else sizes)
    distinct = np.unique(points.round(6), axis=0)
    if len(distinct) < k:
        spread = np.linspace(-1, 1, k)[:, None] * np.log(2)
        centres = distinct[np.arange(k) % len(distinct)] + spread
    else:
        centres = KMeans(k, n_init=10, random_state=seed).fit(points).cluster_centers_
    found = np.exp(centres)
    return found[found.prod(1).argsort()]


@dataclass(frozen=True)
class Fitted:
    """Anchors as a YAML takes them, and what was found out."""

    anchors: list[list[float]]
    recall: float  # best possible, of these anchors
    recall_before: float | None  # of the YAML's; None where it gives a number only
    replaced: bool


def fit_anchors(config: Config, split: DetectionSet, seed: int = 0) -> Fitted:
    """The YAML's anchors if the boxes of `split` can be learned with them, else better ones by k-means.

    Raises
    ------
    InputError
        There is no box to fit to.
    """
    sizes = box_sizes(split)
    if not len(sizes):
        raise InputError("the training images have no boxes: there is nothing to learn")
    given = config.anchors
    before = None
    if isinstance(given, list):
        before = best_possible_recall(sizes, _flat(given))
        if before >= ENOUGH:
            return Fitted(given, before, before, False)
    num_levels = len(config.rows[-1].sources)
    per_level = config.num_anchors or 3
    found = kmeans_anchors(sizes, num_levels * per_level, seed).round(1)
    recall = best_possible_recall(sizes, found)
    if before is not None and recall <= before:
        return Fitted(given, before, before, False)
    return Fitted(found.reshape(num_levels, -1).tolist(), recall, before, True)


def _flat(anchors: Sequence[Sequence[Any]]) -> np.ndarray:
    return np.array(anchors, dtype=float).reshape(-1, 2)
