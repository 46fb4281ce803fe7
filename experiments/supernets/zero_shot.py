"""A space and the studies that search it by a zero-cost proxy: nothing is trained."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from models.errors import InputError
from models.files import save_model_yaml
from models.grammar import read_config
from spaces import Space

from ..costs.counted import COUNTED
from ..proxies.probe import Probe
from ..run import registry
from ..run.amounts import written
from ..run.commands import command
from ..run.console import say
from ..run.device import device_of
from ..tasks.task import SearchTask, open_task
from .rating import Rating
from .studies import SubnetSearch

_PROBED = ("task", "data", "imgsz", "batch")


class ProxyRating(Rating):
    """Arch to its score by a proxy."""

    def __init__(self, proxy: str, space: Space, task: SearchTask, device: str, total: int) -> None:
        super().__init__(lambda: None, task, total)
        self.metric, self._space, self._probe = proxy, space, Probe(task, device)

    def rate(self, arch: Mapping[str, Any]) -> float:
        return self._probe.score(self.metric, self._space.freeze(arch))


class ProxySearch(SubnetSearch):
    """As a search of a supernet, with a score of fresh networks in place of a metric of slices."""

    def open(self) -> dict[str, Any]:
        options = self.options
        assert options.cfg is not None
        known = [name for name in registry.names("proxy") if name not in COUNTED]
        found = [name for name in options.objectives if name in known]
        if len(found) != 1:
            raise InputError(
                f"--objectives {','.join(options.objectives)}: without a supernet right would be one proxy "
                f"({', '.join(known)}), then costs, such as naswot,flops"
            )
        self.metric = found[0]
        task = options.task or ("detect" if read_config(options.cfg, scale=options.scale).has_head else "classify")
        given = {name: value for name in _PROBED if (value := getattr(options, name)) is not None}
        self.probed = {"task": task, **registry.KINDS["task"][task].defaults, **given}
        self.searched, self.task, _ = open_task(Namespace(**{**asdict(options), "detector": None, **self.probed}))
        self.imgsz = options.cost_imgsz or self.probed["imgsz"]
        raw = json.dumps(self.searched.config.raw, sort_keys=True, default=str)
        return {"space": hashlib.sha256(raw.encode()).hexdigest()[:16], **{k: str(v) for k, v in self.probed.items()}}

    def rating(self, total: int) -> Rating:
        return ProxyRating(self.metric, self.searched, self.task, device_of(self.options.device), total)

    def aliases(self) -> set[str]:
        return {self.metric}

    @property
    def record(self) -> dict[str, Any]:
        return {"seed": self.options.seed}

    def write_pick(self, results: Mapping[str, Any]) -> None:
        """``arch.json`` and the plain YAML of the arch that was picked, and what to do with them.

        What is no detector is written with fresh weights, since `train.py` begins with a ``classifier.pt``.
        """
        row, path = results["picked"], self.run.path
        self.run.write_json("arch.json", row["arch"])
        file = path / f"{self.task.result}.yaml"
        save_model_yaml(self.space.freeze(row["arch"]), file)
        begin = ["--cfg", file]
        if self.task.detector is None:
            torch.manual_seed(self.options.seed)
            self.task.hand_over(self.task.network(self.searched.freeze(row["arch"])), path, row["arch"])
            begin = ["--weights", file.with_suffix(".pt")]
        data = self.probed["data"] if self.task.is_whole else "path/to/data.yaml"
        costs = ", ".join(f"{c} {written(c, row[c])}" for c in self.domain.providers)
        say(
            f"picked trial {row['trial']}: {self.metric} {row[self.metric]:.4f}, {costs}",
            f"train: {command('train.py', *begin, '--data', data, '--imgsz', self.probed['imgsz'])}",
        )
