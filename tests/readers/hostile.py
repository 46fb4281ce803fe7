"""Inputs that nobody means: documents with a part of them exchanged, and texts with their bytes exchanged."""

import copy
import json

import yaml
from hypothesis import strategies as st

SCALARS = (
    *(None, True, False, 0, -1, 1, 2, 7, 64, 255, 65_537, 10**9, -(10**9), 2**31, 2**63, 2**64, 10**18, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e300, -1e300, float("nan"), float("inf"), -float("inf")),
    *("", " ", "nc", "None", "nan", "1e400", "9" * 5000, "x" * 300, "../" * 100, "a\0b", "a\nb", "\x1b[31m", "\ud7ff"),
    *(
        "nn.SiLU()",
        "nn.Conv2d(3,3,1)",
        "nn.Softmax",
        "__import__('os')",
        "torch.zeros(10**12)",
        "Detect",
        "C3",
        "~",
        "/",
    ),
    *("=1+1", "<script>", "auto", "-1", "true", "2024-13-45", "%s%n", "{0}", "é😀", "a" * 70_000),
)
scalars = st.one_of(st.sampled_from(SCALARS), st.integers(), st.floats(), st.text(max_size=20))
MILD = (0, 1, 2, 3, 4, 5, 6, 8, 15, 16, 17, 33, 64, 100, 300, -2, 0.1, 0.5, 2.5, True, "None", "nc", "nn.ReLU()", "'a'")
mild = st.one_of(
    st.sampled_from(
        [*MILD, *("Conv", "C3", "SPP", "Concat", "nn.BatchNorm2d", "nn.Identity", "GhostConv", "C2f", "Detect")]
    ),
    st.lists(st.sampled_from(MILD), max_size=4),
)
keys = st.one_of(
    st.text(max_size=8), st.integers(-3, 100), st.sampled_from(["choice", "range", "table", "label", "by"])
)


def _grown(children):
    mappings = st.dictionaries(keys, children, max_size=4)
    choices = st.one_of(
        st.fixed_dictionaries({"choice": st.lists(children, max_size=4)}),
        st.fixed_dictionaries({"range": st.lists(children, max_size=4)}),
        st.builds(lambda: {"range": [1, 10**6, 1]}),  # a new one each time: it may be changed
        st.fixed_dictionaries({"table": mappings, "by": children}),
    )
    return st.one_of(st.lists(children, max_size=5), mappings, choices)


values = st.recursive(scalars, _grown, max_leaves=12)
deep = st.sampled_from([40, 60, 990, 5000]).map(lambda n: _nested(n))
long = st.tuples(scalars, st.sampled_from([1001, 6000])).map(lambda pair: [pair[0]] * pair[1])


def _nested(levels):
    found = []
    for _ in range(levels):
        found = [found]
    return found


def places(document, path=()):
    """Every place in a document."""
    yield path
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(pairs):
        yield from places(value, (*path, key))


@st.composite
def mutated(draw, document, most=3, with_=values):
    """The document with some of its parts exchanged, left out, twice there, or each other's."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(list(places(document))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(with_)
            continue
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        how = draw(st.sampled_from(["value", "value", "value", "delete", "double", "swap", "key", "long"]))
        key = path[-1]
        if how == "delete":
            del parent[key]
        elif how == "double" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif how == "swap":
            other = draw(st.sampled_from(list(places(document))))
            found = document
            for k in other:
                found = found[k]
            parent[key] = copy.deepcopy(found)
        elif how == "key" and isinstance(parent, dict):
            parent[draw(keys)] = draw(with_)
        elif how == "long":
            parent[key] = draw(long)
        else:
            parent[key] = draw(with_)
    return document


@st.composite
def bytes_of(draw, whole):
    """Bytes with some of them exchanged, cut off, left out, or others put in."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not found:
            break
        at = draw(st.integers(0, len(found) - 1))
        how = draw(st.sampled_from(["flip", "cut", "leave", "put", "again", "zero"]))
        length = draw(st.integers(1, 64))
        if how == "flip":
            found[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del found[at:]
        elif how == "leave":
            del found[at : at + length]
        elif how == "put":
            found[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif how == "again":
            found[at:at] = found[at : at + length]
        else:
            found[at : at + length] = bytes(min(length, len(found) - at))
    return bytes(found)


def dumped_yaml(document):
    try:
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
    except (ValueError, yaml.YAMLError, RecursionError):  # what Python cannot write: too many digits, too deep
        return b"[" * 3000


def dumped_json(document):
    try:
        return json.dumps(document, default=str).encode("utf-8", "replace")
    except (ValueError, TypeError, RecursionError):
        return b"[" * 100_000


def alias_bomb(key, levels=9, width=9):
    lines = [f"{key}: {{b: &a0 [{', '.join(['lol'] * width)}]"]
    lines += [f"  , c{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join([*lines, "  }"]).encode() + b"\n"


def yaml_files(document):
    """Bytes of YAML files that are nearly this document."""
    whole = dumped_yaml(document)
    aliases = st.sampled_from([*map(str, document), "names", "anchors", "x"]).flatmap(
        lambda key: st.sampled_from(
            [
                whole + alias_bomb(key),
                alias_bomb(key),
                whole + f"{key}: &a [*a]\n".encode(),
                whole + f"{key}: &a {{x: *a}}\n".encode(),
                whole + f"{key}: {'[' * 3000}\n".encode(),
                whole + f"{key}: {'{a: ' * 300}{'}' * 300}\n".encode(),
                whole + f"{key}: {'9' * 5000}\n".encode(),
                whole + f"{key}: 1{':59' * 20000}\n".encode(),
                whole + f"{key}: 0x{'f' * 5000}\n".encode(),
                whole + f"{key}: -.inf\n".encode(),
                whole + f"{key}: 2024-02-30\n".encode(),
                whole + f"{key}: !!python/object/apply:os.system [true]\n".encode(),
                whole + f"{key}: !!binary 'x'\n".encode(),
                whole + b"<<: *nothing\n",
                whole * 300,
                whole + f"{key}: {'x' * 2_000_000}\n".encode(),
            ]
        )
    )
    return st.one_of(
        mutated(document, 2, mild).map(dumped_yaml),
        mutated(document, 1, st.one_of(mild, scalars)).map(dumped_yaml),
        mutated(document).map(dumped_yaml),
        bytes_of(whole),
        aliases,
        st.binary(max_size=200),
        st.one_of(values, deep).map(dumped_yaml),
    )


def json_files(document):
    """Bytes of JSON files that are nearly this document."""
    whole = dumped_json(document)
    special = st.sampled_from(
        [b"", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"\xff\xfe", b"\xef\xbb\xbf" + whole, whole * 2]
    )
    changed, mildly = mutated(document).map(dumped_json), mutated(document, 2, mild).map(dumped_json)
    return st.one_of(
        mildly, changed, changed, bytes_of(whole), special, st.binary(max_size=100), values.map(dumped_json)
    )
