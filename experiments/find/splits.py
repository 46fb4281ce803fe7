"""Who sees which pictures: training, validation and test images of any set, none of them in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from data import detection_sources
from data.format_coco import write
from data.formats import Spec, spec_of
from models.errors import InputError
from models.files import write_text

from ..tasks.loaders import shared_out

SPLITS = ("train", "val", "test")
# From the one that is looked at last: an image that two splits have stays in the first of these.
_KEPT_IN = ("test", "val", "train")
# A validation split of which more are training images is none.
_COPIED = 0.5


class Picture(NamedTuple):
    """An image and what is on it; `labels` float32 (n, 5) as `data.Item` has them, of the whole image."""

    file: str
    shape: tuple[int, int]
    labels: np.ndarray
    ignored: np.ndarray  # float32 (k, 6) as `data.Meta` has it
    digest: str  # of the file: copies have the same


@dataclass
class Splits:
    """The pictures of a set by split.

    Attributes
    ----------
    notes
        What was wrong with them, and what was made of it.
    """

    names: tuple[str, ...]
    pictures: dict[str, list[Picture]]
    notes: list[str] = field(default_factory=list)


def read_splits(spec: Spec, share: float, seed: int) -> Splits:
    """The splits of a set; those that it does not have are made of the others, class by class, seeded.

    Raises
    ------
    InputError
        There are no boxes, or too few images to be shared out.
    """
    names, sources = detection_sources(spec)
    pictures = {
        split: [
            Picture(n := s.name(i), s.shapes[i], s.labels[i], s.ignored[i], _digest(n)) for i in range(len(s.shapes))
        ]
        for split, s in sources.items()
    }
    found = Splits(names, pictures, [str(s.report) for s in sources.values()])
    if not any(len(p.labels) for part in pictures.values() for p in part):
        raise InputError(f"{spec.where}: none of its images has a box; right would be labels of what is to be found")
    _part(found)
    for split in ("test", "val"):
        if split not in found.pictures:
            _share_out(found, split, share, seed, spec.where)
    if not any(len(p.labels) for p in found.pictures["train"]):
        raise InputError(f"{spec.where}: none of the training images has a box")
    return found


def _part(found: Splits) -> None:
    """Take images out that are in two splits."""
    digests = {s: [p.digest for p in part] for s, part in found.pictures.items()}
    if "val" in digests:
        both = len(set(digests["val"]) & set(digests["train"]))
        if both > _COPIED * len(set(digests["val"])):
            found.notes.append(
                f"val: {both} of its {len(digests['val'])} images are training images: another is made of them all"
            )
            # Those that are its own are training images as well.
            known = set(digests["train"])
            own = [i for i, d in enumerate(digests["val"]) if d not in known]
            found.pictures["train"] += [found.pictures["val"][i] for i in own]
            digests["train"] += [digests["val"][i] for i in own]
            del found.pictures["val"], digests["val"]
    taken: set[str] = set()
    for split in [s for s in _KEPT_IN if s in digests]:
        keep = [i for i, d in enumerate(digests[split]) if d not in taken]
        if num_left := len(digests[split]) - len(keep):
            found.notes.append(f"{split}: {num_left} images are in a later split too, and are left out of this one")
        again = len(keep) - len({digests[split][i] for i in keep})
        if again:
            found.notes.append(f"{split}: {again} images are there more than once")
        taken.update(digests[split])
        found.pictures[split] = [found.pictures[split][i] for i in keep]


def _digest(file: str) -> str:
    path = Path(file)
    # Of a set that is drawn, names tell images apart.
    return hashlib.sha256(path.read_bytes() if path.is_file() else file.encode()).hexdigest()


def _share_out(found: Splits, split: str, share: float, seed: int, where: str) -> None:
    """Make a split of training images. Copies of an image stay together."""
    groups: dict[str, list[Picture]] = {}
    for p in found.pictures["train"]:
        groups.setdefault(p.digest, []).append(p)
    if len(groups) < 4:
        raise InputError(
            f"{where}: {len(groups)} different training images are too few to make a {split} split of; right would be "
            "4 at least"
        )
    members = list(groups.values())
    kept, made = shared_out([m[0].labels for m in members], share, seed)
    found.pictures["train"] = [p for i in sorted(kept) for p in members[i]]
    found.pictures[split] = [p for i in sorted(made) for p in members[i]]
    found.notes.append(
        f"{split}: there was none; {len(found.pictures[split])} training images are it now (seed {seed})"
    )


def write_splits(found: Splits, spec: Spec, folder: Path) -> None:
    """``data.yaml`` and an annotation file a split, with the images where they lie."""
    content: dict[str, Any] = {"names": list(found.names)}
    if spec.options.get("mirror") is False:
        content["mirror"] = False
    for split, part in found.pictures.items():
        images = [(str(Path(p.file).resolve()), p.shape) for p in part]
        write(folder / f"{split}.json", found.names, images, [p.labels for p in part], [p.ignored for p in part])
    files: dict[str, Any] = {split: f"{split}.json" for split in SPLITS}
    write_text(folder / "data.yaml", yaml.safe_dump({"format": "coco", **files, **content}, sort_keys=False))


def open_splits(source: str, share: float, seed: int, folder: Path) -> Splits:
    """Read a set, and leave in `folder` what opens its splits as `data.detection` does."""
    spec = spec_of(source, needs=("train",))
    if spec.format == "digits-detect":
        # It is drawn, so that its test images are drawn too.
        entries = dict(spec.entries)
        entries.setdefault("val", max(round(share * entries["train"]), 1))
        entries.setdefault("test", entries["val"])
        spec = Spec(spec.where, spec.root, spec.format, entries, spec.names, spec.options)
        found = read_splits(spec, share, seed)
        own: dict[str, Any] = {k: spec.options[k] for k in ("canvas", "mirror", "names") if k in spec.options}
        content: dict[str, Any] = {"format": spec.format, **entries, **own}
        write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False))
        return found
    found = read_splits(spec, share, seed)
    write_splits(found, spec, folder)
    return found


def class_notes(
    names: Sequence[str], pictures: Mapping[str, Sequence[Picture]]
) -> tuple[dict[str, list[int]], list[str]]:
    """Boxes of each class in the splits, and what is to be said about them."""
    counts = {name: [0, 0, 0] for name in names}
    for k, split in enumerate(SPLITS):
        for p in pictures[split]:
            for c in p.labels[:, 0].astype(int):
                counts[names[c]][k] += 1
    notes = []
    for name, (train, val, test) in counts.items():
        if train == 0:
            where = "no split" if val + test == 0 else "validation or test images alone"
            notes.append(f"class {name}: has boxes in {where}, so that it cannot be learnt")
        elif missing := [s for s, n in (("validation", val), ("test", test)) if n == 0]:
            notes.append(f"class {name}: has no boxes in the {' and '.join(missing)} images, where it is not measured")
    most, least = max(c[0] for c in counts.values()), min((c[0] for c in counts.values() if c[0]), default=0)
    if least and most > 20 * least:
        rare = min((n for n in counts if counts[n][0]), key=lambda n: counts[n][0])
        notes.append(f"class {rare}: has {least} training boxes, the most frequent one {most}: expect little of it")
    return counts, notes
