"""Whole detectors: who gives neck and head, and the space of the detectors that the archs of a search stand for."""

from __future__ import annotations

from models.catalog import lookup
from models.detector import Model
from models.grammar import Config, choices_in, read_config
from models.registry import scaled
from optimizer.match import MULTIPLES, join
from spaces import Space
from spaces.rows import SpaceRow


def head_of(space: Space, detector: str | None) -> Model | None:
    """The detector that gives neck and head, if any; built before the search, so that an error comes before it."""
    if detector is not None:
        return Model(detector)
    if not space.config.has_head:
        return None
    return Model(read_config(space.freeze(space.upstream()), file=space.config.file))


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

    Raises
    ------
    InputError
        If no YAML has the choices of a row, since what its widths and repeats mean is another in the detector's.
    """
    if own_head:
        return Space(read_config(space.config, nc=detector.config.nc))
    plain = read_config(space.freeze(space.upstream()), file=space.config.file)
    raw = join(detector.config, plain.backbone())
    joined = [*raw["backbone"], *raw["head"]]
    written_out = read_config(raw, file=detector.config.file)  # by `join`, whose multiples are 1 then
    as_written = all(getattr(written_out, m) == getattr(space.config, m) for m in MULTIPLES)
    for row in space.config.backbone().rows:
        if any(choices_in(row)) and not (as_written and _same_widths(space, space.rows[row.index], detector.config)):
            raise row.error(
                f"has choices, and widths mean other channels in {detector.config.file}: right would be the same "
                "multiples in both, and no width that is the number of the head's outputs"
            )
        if as_written:
            joined[row.index] = row.written
        else:
            # As `join` wrote the plain row: repeats, and channels if it begins with them; what is searched as it was.
            source, number, _, args = joined[row.index]
            joined[row.index] = [source, number, row.module, [*args[:1], *row.written[3][1:]]]
    split = len(raw["backbone"])
    return Space(read_config({**raw, "backbone": joined[:split], "head": joined[split:]}, file=detector.config.file))


def _same_widths(space: Space, row: SpaceRow, detector: Config) -> bool:
    """Whether every width that the row may have is as many channels in the detector as in the space."""
    upstream = space.upstream()
    plain = [row.at({**upstream, label: value}) for label in row.labels for value in space.decisions[label].values]
    scaled_rows = [r for r in plain if lookup(r).channels is scaled]
    return all(detector.width(r.args[0], r) == space.config.width(r.args[0], r) for r in scaled_rows)
