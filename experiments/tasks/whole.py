"""Whole detectors: who gives neck and head, and the space of the detectors that the archs of a search stand for."""

from __future__ import annotations

from models.detector import Model
from models.grammar import choices_in, read_config
from optimizer.match import join
from spaces import Space


def head_of(space: Space, detector: str | None) -> Model | None:
    """The detector that gives neck and head, if any; built before the search, so that an error comes before it."""
    if detector is not None:
        return Model(detector)
    if not space.config.has_head:
        return None
    return Model(read_config(space.freeze(space.upstream())))


def detector_space(space: Space, detector: Model, own_head: bool) -> Space:
    """The space of whole detectors that a search's archs stand for; its labels are those of `space`.

    Parameters
    ----------
    space
        The space that is searched.
    detector
        What gives neck, head and classes.
    own_head
        Whether that is the head of `space` itself.
    """
    if own_head:
        return Space(read_config(space.config, nc=detector.config.nc))
    plain = read_config(space.freeze(space.upstream()), file=space.config.file)
    raw = join(detector.config, plain.backbone())
    joined = [*raw["backbone"], *raw["head"]]
    multiples = ("depth_multiple", "width_multiple", "channel_multiple")
    as_written = all(getattr(detector.config, m) == getattr(space.config, m) for m in multiples)
    for row in space.config.backbone().rows:
        if as_written:
            joined[row.index] = row.written
        elif any(choices_in(row)):
            raise row.error(f"has choices, and {detector.config.file} other multiples: give both the same")
        else:
            # As `join` wrote the plain row: repeats, and channels if it begins with them; what is searched as it was.
            source, number, _, args = joined[row.index]
            joined[row.index] = [source, number, row.module, [*args[:1], *row.written[3][1:]]]
    split = len(raw["backbone"])
    return Space(read_config({**raw, "backbone": joined[:split], "head": joined[split:]}, file=detector.config.file))
