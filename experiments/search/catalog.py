"""Searchers by name."""

from __future__ import annotations

from ..run import registry
from .base import Searcher


def make_searcher(name: str, **options: int | None) -> Searcher:
    """A searcher of the registry. Of the options it is told those that it takes, but for None, its own default."""
    make = registry.load("searcher", name)
    takes = registry.KINDS["searcher"][name].options
    searcher: Searcher = make(**{k: v for k, v in options.items() if k in takes and v is not None})
    return searcher
