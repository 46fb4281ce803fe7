"""What runs leave behind: config.yaml, archs, results, tables of latencies, costs, CSVs, studies."""

import contextlib
import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.costs.config import read_costs
from experiments.costs.latency_table import LatencyTable
from experiments.multi_trial.options import Options as MultiTrial
from experiments.multi_trial.runs import experiment_id
from experiments.oneshot.options import Options as OneShot
from experiments.run.folder import RunFolder
from experiments.run.options import checked
from experiments.search import Random, Search, open_storage
from experiments.supernets.fidelity import read_truths, what_is_known
from experiments.supernets.options import Options as Subnets
from experiments.supernets.space_report import read_rows
from experiments.testing import BOTH, CFG, domain
from experiments.training.options import Options as Training
from models.documents import read_json
from models.schemas import Retrained, SearchOptions
from spaces import CostModel, Space, read_arch

from .guard import holds, slowly
from .hostile import bytes_of, json_files, yaml_files

OPTIONS = {
    "strategy": "darts",
    "task": "classify",
    "cfg": "models/yolov5n_nas.yaml",
    "data": "digits",
    "epochs": 2,
    "batch": 64,
    "imgsz": 64,
    "cost_imgsz": 640,
    "seed": 0,
    "lr0": 0.01,
    "hyp": {"mosaic": 0.5},
    "plugin": [],
    "distill_rows": [1, 2],
    "arch_share": 0.5,
    "max_flops": 4.5e9,
}
CONFIG = {"format": 1, "options": OPTIONS, "command": ["train.py"], "code": {}, "seal": "0"}
ARCH = {"width": 16, "depth": 2, "row2.0": 16, "k": 3}
KINDS = {"oneshot": OneShot, "multi-trial": MultiTrial, "subnets": Subnets, "train": Training}


@pytest.fixture(scope="module")
def space():
    return Space(CFG)


STRATEGIES = {"oneshot": "darts", "multi-trial": "random", "subnets": "", "train": "auto"}
CONFIGS = {
    kind: {
        **CONFIG,
        "options": {k: v for k, v in {**OPTIONS, "strategy": STRATEGIES[kind]}.items() if k in of.__dataclass_fields__},
    }
    for kind, of in KINDS.items()
}


def _resumed(folder, kind):
    _, saved = RunFolder.resume(folder)
    return KINDS[kind](**checked(KINDS[kind], saved, "config.yaml"))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_config(tmp_path, kind, data):
    (tmp_path / "config.yaml").write_bytes(data.draw(yaml_files(CONFIGS[kind])))
    holds(f"config.yaml, {kind}", _resumed, tmp_path, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_of_its_own(tmp_path, kind):
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIGS[kind]))
    assert _resumed(tmp_path, kind).seed == 0


@given(yaml_files(CONFIG))
def test_a_config_of_a_supernet(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    holds("config.yaml, supernet", lambda: SearchOptions.of(RunFolder.resume(tmp_path)[1], "config.yaml"))


@given(json_files(ARCH))
def test_an_arch(tmp_path, space, content):
    (tmp_path / "arch.json").write_bytes(content)
    holds("arch.json", lambda: space.freeze(read_arch(tmp_path / "arch.json")))


@given(json_files({"id": "abc123"}))
def test_an_experiment(tmp_path, content):
    (tmp_path / "experiment.json").write_bytes(content)
    holds("experiment.json", lambda: experiment_id(RunFolder(tmp_path.parent, tmp_path.name, exist_ok=True)))


@given(json_files({"derived": 0.5, "plain_2": 0.25}))
def test_retrained(tmp_path, content):
    (tmp_path / "retrained.json").write_bytes(content)
    holds("retrained.json", lambda: Retrained.of(read_json(tmp_path / "retrained.json"), "retrained.json"))


ranks = {"tau": 0.5, "low": 0.1, "high": 0.9, "spearman": 0.5}


@given(json_files({"metric": "accuracy", "archs": 8, "predictors": {"supernet": ranks, "flops": ranks}}))
def test_fidelity(tmp_path, content):
    (tmp_path / "fidelity.json").write_bytes(content)
    holds("fidelity.json", what_is_known, tmp_path)


@given(
    json_files({"device": "a board", "threads": 1, "torch": "2.11", "milliseconds": {"Conv 8": {"": 0.5, "conv": 1}}})
)
def test_a_latency_table(tmp_path, content):
    (tmp_path / "table.json").write_bytes(content)
    holds("latency table", LatencyTable, tmp_path / "table.json")


COSTS = {
    "costs": {
        "latency": {"provider": "roofline", "hw_config": {"peak": "2T", "bandwidth": 1e9, "bytes": 4}},
        "flops": {"provider": "flops"},
        "energy": {"provider": "torch", "hw_config": {"threads": 1, "device": "cpu"}},
        "far": {"servers": [{"host": "127.0.0.1", "ports": [1]}], "timeout": 1, "connect_timeout": 0.05, "batch": 4},
    },
}


@pytest.fixture(scope="module")
def model(space):
    return CostModel(space, 64)


@slowly
@given(yaml_files(COSTS))
def test_costs(tmp_path, model, content):
    (tmp_path / "costs.yaml").write_bytes(content)

    def read():
        return [make(model) for name, make in read_costs(tmp_path / "costs.yaml").items() if name != "far"]

    holds("costs YAML", read)


HEAD = "trial,searcher,accuracy,flops,arch\n"
CSV = (HEAD + '0,random,0.5,100,"{""k"": 3, ""width"": 8}"\n1,random,0.25,50,"{""k"": 1, ""width"": 16}"\n').encode()
csv_files = st.one_of(
    bytes_of(CSV),
    bytes_of(CSV),
    st.binary(max_size=200),
    st.text(max_size=30).map(lambda t: (HEAD + f'0,random,{t},1,"{{}}"\n').encode("utf-8", "replace")),
    st.text(max_size=30).map(lambda t: (HEAD + f"0,random,1,1,{t}\n").encode("utf-8", "replace")),
    st.sampled_from(
        [
            (HEAD + "0,random,1,1," + "[" * 50_000 + "\n").encode(),
            (HEAD + "0,random,1,1," + "x" * 200_000 + "\n").encode(),
            (HEAD + "0,random,1,1,{},7,8\n").encode(),
            (HEAD + "0\n").encode(),
            b"\xef\xbb\xbf" + CSV,
            CSV.replace(b"0.5", b"9" * 5000),
            CSV.replace(b"3", b"9" * 5000),
        ]
    ),
)


@given(csv_files)
def test_archs_of_a_search(tmp_path, content):
    (tmp_path / "subnets.csv").write_bytes(content)
    holds("EDF csv", read_rows, tmp_path / "subnets.csv")


@given(st.one_of(bytes_of(b"width,depth,row2.0,k,accuracy\n8,1,16,3,0.5\n"), csv_files))
def test_truths(tmp_path, space, content):
    (tmp_path / "truths.csv").write_bytes(content)
    holds("truths csv", read_truths, tmp_path / "truths.csv", space, "accuracy")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "study.db"
    _search(path, 3)
    return path.read_bytes()


def _search(path, trials=0):
    search = Search(domain(), BOTH, Random(), budget=10, storage=open_storage(f"sqlite:///{path}"))
    for _ in range(trials):
        search.tell(search.ask(), {"accuracy": 0.5})
    return search.results()


# A page of SQLite's is 4,096 bytes: also what is well formed is exchanged, by its own means.
@slowly
@given(st.tuples(st.integers(0, 2**31), st.binary(min_size=1, max_size=64), st.booleans()))
def test_a_study(tmp_path_factory, study, change):
    at, new, cut = change
    whole = bytearray(study)
    at %= len(whole)
    whole[at : at + len(new)] = new
    path = tmp_path_factory.mktemp("study") / "study.db"  # what was opened before may hold a lock
    path.write_bytes(whole[:at] if cut else whole)
    holds("study.db, bytes", _search, path)


TABLES = {
    "studies": ("study_name",),
    "study_directions": ("direction", "objective"),
    "study_user_attributes": ("key", "value_json"),
    "trials": ("number", "state", "study_id"),
    "trial_params": ("param_name", "param_value", "distribution_json"),
    "trial_values": ("value", "value_type", "objective"),
    "trial_user_attributes": ("key", "value_json"),
    "version_info": ("schema_version", "library_version"),
    "alembic_version": ("version_num",),
}
cells = st.one_of(
    st.none(),
    st.sampled_from(
        [0, -1, 10**18, 0.5, float("inf"), "", "x", "null", "[]", "{}", '"x"', "[" * 5000, "9" * 5000, b"\xff"]
    ),
    st.sampled_from(["COMPLETE", "RUNNING", "MINIMIZE", '{"name": "IntDistribution", "attributes": {}}', "v99.0.0.a"]),
)


@slowly
@given(st.sampled_from([(t, c) for t, columns in TABLES.items() for c in columns]), cells, st.booleans())
def test_a_study_with_another_cell(tmp_path_factory, study, place, value, dropped):
    path = tmp_path_factory.mktemp("study") / "study.db"
    path.write_bytes(study)
    database = sqlite3.connect(path)
    try:
        with database:
            if dropped and value is None:
                database.execute(f"DROP TABLE {place[0]}")
            else:
                database.execute(f"UPDATE {place[0]} SET {place[1]} = ?", (value,))
    except sqlite3.Error:  # which its own rules forbid
        return
    finally:
        database.close()
    holds("study.db, cells", _search, path)


def test_a_study_of_another_program(tmp_path):
    database = sqlite3.connect(tmp_path / "study.db")
    with database:
        database.execute("CREATE TABLE studies (id TEXT)")
    database.close()
    assert holds("study.db, cells", _search, tmp_path / "study.db") is None


urls = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                ":",
                "sqlite",
                "sqlite:",
                "sqlite://",
                "sqlite:///",
                "sqlite:////proc/x",
                "sqlite:////dev/null",
                "sqlite:///.",
            ),
            *(
                "journal:",
                "journal:/dev/zero",
                "journal:.",
                "journal:/proc/self/x",
                "grpc://",
                "grpc://:1",
                "grpc://[::1]:x",
            ),
            *(
                "mysql://",
                "oracle://x",
                "postgresql://:x@/y",
                "postgresql+nothing://x",
                "sqlite:///x?timeout=a",
                "http://x",
            ),
            *("sqlite:///" + "x" * 300, "journal:" + "x" * 300, "sqlite:///a\0b", "journal:a\0b", "sqlite:///\ud800"),
            "postgresql://u:secret@127.0.0.1:99999999/x",
        ]
    ),
    st.text(max_size=12),
    st.text(max_size=12, alphabet=st.characters(exclude_characters="/\\.~")).map(lambda t: f"sqlite:///{t}"),
)


@slowly
@given(urls)
def test_a_storage(tmp_path_factory, url):
    with contextlib.chdir(tmp_path_factory.mktemp("storage")):
        holds("storage URL", open_storage, url)


@slowly
@given(json_files([{"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [1]}]).map(lambda c: c + b"\n"))
def test_a_journal(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("journal") / "study.log"
    path.write_bytes(content)
    holds(
        "journal",
        lambda: Search(domain(), BOTH, Random(), budget=2, storage=open_storage(f"journal:{path}")).results(),
    )


def test_what_is_kept_is_read_again(tmp_path, study):
    """Not everything is refused."""
    (tmp_path / "study.db").write_bytes(study)
    assert len(_search(tmp_path / "study.db")) == 3
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    assert checked(OneShot, RunFolder.resume(tmp_path)[1], "x") == OPTIONS
    (tmp_path / "subnets.csv").write_bytes(CSV)
    metric, rows = read_rows(tmp_path / "subnets.csv")
    assert (metric, [row["error_rate"] for row in rows]) == ("accuracy", [0.5, 0.75])
