"""Image classification by the networks of a model space of NNI, which have no YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data import classification
from models.files import FORMAT
from models.plain_files import save_plain
from spaces.hub import NetworkSpace

from .classify import ClassifyTask
from .loaders import arch_share


class NetworkTask(ClassifyTask):
    """`ClassifyTask` whose networks are told by an arch, not by a YAML.

    Attributes
    ----------
    searched
        The space, made for the data's classes and the side of the images.
    """

    result = "network"
    detector = None
    is_whole = True

    def __init__(self, options: Any, accelerator: str) -> None:
        self.options, self.accelerator = options, accelerator
        share = arch_share(options) or 0.5
        self.data = classification(options.data, options.imgsz, options.seed, options.data_root, 3, share)
        self._parts = {"weights": self.data.train, "arch": self.data.arch, "all": self.data.both}
        self.searched = NetworkSpace(options.space, self.data.nc, options.imgsz)

    def space(self) -> Any:
        return self.searched.build()

    def network(self, cfg: Mapping[str, Any]) -> Any:
        """The plain network of an arch."""
        return self.searched.network(cfg)

    def cut_out(self, supernet: Any, arch: Mapping[str, Any]) -> Any:
        """The plain network that a supernet is at an arch."""
        return self.searched.plain(arch, supernet.freeze(self.searched.lists(arch)))

    def hand_over(
        self, network: Any, folder: Path, arch: Mapping[str, Any], name: str | None = None, is_slice: bool = False
    ) -> Any:
        """Write ``network.pt``: which class, its arch, and the weights of what that builds within `fixed_arch`."""
        content = {
            "format": FORMAT,
            "space": self.searched.text,
            "nc": self.data.nc,
            "imgsz": self.options.imgsz,
            "names": dict(enumerate(self.data.names)),
            "arch": self.searched.lists(arch),
            "state_dict": {k: v.detach().cpu() for k, v in network.state_dict().items()},
        }
        save_plain(content, folder / f"{name or self.result}.pt")
        return network
