"""Fronts of archs between several objectives. Losses are (n, m): an arch a row, every column the smaller the better."""

from __future__ import annotations

import moocore
import numpy as np


def front(losses: np.ndarray) -> np.ndarray:
    """(n,) bool: whom no other beats in one loss without being beaten in another; of equals the first."""
    if not len(losses):
        return np.zeros(0, bool)
    on_front: np.ndarray = moocore.is_nondominated(losses)
    return on_front


def reference_point(losses: np.ndarray) -> np.ndarray:
    """(m,), a tenth of the range behind the worst of every loss, so that the ends of a front count as well."""
    worst, best = losses.max(0), losses.min(0)
    apart: np.ndarray = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1))
    return worst + 0.1 * apart


def hypervolume(losses: np.ndarray, reference: np.ndarray) -> float:
    """What the archs dominate up to `reference` (Zitzler and Thiele 1998), in units of the losses."""
    inside = losses[(losses < reference).all(1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    return float(moocore.hypervolume(inside, ref=reference))


def hypervolume_history(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(n,), the hypervolume of the first 1, 2, … archs."""
    history, best, kept = np.zeros(len(losses)), 0.0, losses[:0]
    for i, row in enumerate(losses):
        if not (kept <= row).all(1).any():
            kept = np.concatenate([kept[~(row <= kept).all(1)], row[None]])
            best = hypervolume(kept, reference)
        history[i] = best
    return history


def knee(losses: np.ndarray) -> int:
    """Index of the arch that bulges farthest from the plane through the front's ends.

    As Das 1999 (doi:10.1007/s001580050111) defines it. With every loss scaled to 0 … 1 over the front, that is the one
    with the smallest sum.
    """
    ends = losses[front(losses)]
    low, high = ends.min(0), ends.max(0)
    scaled = (losses - low) / np.where(high > low, high - low, 1)
    return int(np.where(front(losses), scaled.sum(1), np.inf).argmin())
