"""Pascal VOC: an XML for each image, in Annotations/ or beside the image; splits as lists in ImageSets/Main/.

Coordinates are pixel numbers that start at 1 and include the last (VOC2012 development kit, section 3), so that
the edges of a box are xmin - 1 and xmax. Objects marked difficult are not learnt; where AP is measured, a detection on
one counts neither as right nor as wrong.

Folders may be in lower case, and images in `images/`. Where there is no list for validation, every fifth image of the
training list is held out for it; without any list, of all images.
"""

import re
from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from models.documents import is_file, is_folder, read_bytes
from models.errors import InputError
from models.text import declared_text, read_text

from .detect_index import HELD_OUT, Box, Ignored, Record
from .images import SUFFIXES, list_images, unread_in
from .places import child, home, local
from .report import Report

_LISTS = {"train": ("train", "trainval"), "val": ("val", "valid", "test"), "test": ("test",)}
_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}  # as Roboflow exports them
_IMAGES = ("JPEGImages", "images")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# The XML declaration, which ElementTree takes no text with.
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""")
# A line of a class's own list ends with whether the class is in the image.
_FLAGGED = re.compile(r"(\S.*?)\s+(?:-1|0|1)")


def is_voc(root: Path) -> bool:
    """Whether there are annotations as VOC has them, in a folder of theirs or beside the images of each split."""
    annotations = child(root, "Annotations")
    if annotations is not None and annotations.is_dir():
        return _lists(root) is not None or next(annotations.glob("*.[xX][mM][lL]"), None) is not None
    return "train" in _split_folders(root)


def has_xml(folder: Path) -> bool:
    """Whether XML files lie beside the images of a folder, and no labels of YOLO."""
    return next(folder.glob("*.xml"), None) is not None and next(folder.glob("*.txt"), None) is None


def entries(root: Path) -> dict[str, Any]:
    """The splits of a folder, by the lists that are there."""
    if child(root, "Annotations") is None:
        return dict(_split_folders(root))
    main = _lists(root)
    found: dict[str, Any] = {}
    for split, lists in _LISTS.items():
        name = next((name for name in lists if main and is_file(main / f"{name}.txt")), None)
        if name:
            found[split] = name
    if ("train" in found and "val" not in found) or main is None:
        name = found.get("train")  # None: all that are annotated
        found |= {split: {"list": name, "held_out": split == "val"} for split in ("train", "val")}
    elif found.get("train") == "trainval" and found["val"] == "val":
        found["train"] = {"list": "trainval", "without": "val"}
    return found


def class_names(entry: Any, root: Path, where: str) -> tuple[str, ...]:
    """The objects' names in a split's XML files, sorted."""
    if isinstance(entry, dict):
        entry = {"list": entry.get("list")}  # those of what is held out as well
    names = set()
    for _, file in _files(entry, root, where):
        if file is not None:
            names |= {_text(obj, "name", file, number) for number, obj in enumerate(_objects(file), 1)}
    if not names:
        raise InputError(f"{where}: no XML file names objects for the images of {_said(entry)} in {root}")
    return tuple(sorted(names))


def records(entry: Any, root: Path, where: str, names: tuple[str, ...], report: Report) -> list[Record]:
    """The images of a split. entry: the name of a list in ImageSets/Main/, a folder, or what `entries` gives."""
    class_of = {name: k for k, name in enumerate(names)}
    found = []
    if (folder := _folder(entry, root)) is not None:
        report.unread += unread_in(folder)
    if isinstance(entry, dict) and "held_out" in entry:
        report.note = (
            f"every {HELD_OUT}th image of {_said(entry)} is held out for validation, for which there is no list"
        )
    for image, file in _files(entry, root, where):
        record = Record(image, [], [], in_pixels=True)
        found.append(record)
        if file is None:
            report.missing_labels += 1
            continue
        for number, obj in enumerate(_objects(file), 1):
            name = _text(obj, "name", file, number)
            if name not in class_of:
                raise InputError(f"{file}: object {number}: {name!r} is none of {', '.join(names)} (nc={len(names)})")
            box = _box(obj, file, number)
            if (obj.findtext("difficult") or "0").strip() == "1":
                report.skipped += 1
                record.ignored.append(Ignored(class_of[name], box, crowd=False))
                continue
            record.classes.append(class_of[name])
            record.boxes.append(box)
    return found


def _files(entry: Any, root: Path, where: str) -> list[tuple[Path, Path | None]]:
    """Image and XML file of each image of a split; without one it is background."""
    if (folder := _folder(entry, root)) is not None:
        images = list_images(folder)
        if not images:
            raise InputError(f"{where}: {folder} holds no images")
        beside = {p.with_suffix(""): p for p in folder.rglob("*") if p.suffix.lower() == ".xml"}
        return [(image, beside.get(image.with_suffix(""))) for image in images]
    annotations = child(root, "Annotations") or root / "Annotations"
    images_in = next((p for name in _IMAGES if (p := child(root, name)) is not None), root / _IMAGES[0])
    images = list_images(images_in)[::-1]  # of a.jpg and a.png the first one counts
    by_stem = {image.relative_to(images_in).with_suffix("").as_posix(): image for image in images}
    xml = {p.relative_to(annotations).with_suffix("").as_posix(): p for p in _xml_in(annotations)}
    ids = _image_ids(entry, root, where, {*by_stem, *xml}, xml)
    return [(by_stem.get(i) or images_in / f"{i}.jpg", xml.get(i)) for i in ids]


def _image_ids(entry: Any, root: Path, where: str, known: set[str], xml: dict[str, Path]) -> list[str]:
    """What the images of a split are called, without suffix."""
    if isinstance(entry, dict):
        name = entry.get("list")
        ids = sorted(xml) if name is None else _of_list(name, root, where, known)
        if not ids:
            raise InputError(f"{where}: {root} has no annotated images")
        if "without" in entry:
            held_out = set(_of_list(entry["without"], root, where, known))
            return [i for i in ids if i not in held_out]
        if "held_out" in entry:
            if len(ids) < 2:
                raise InputError(f"{where}: {root} has one image, and one more is needed to validate on")
            picked = set(ids[:: min(HELD_OUT, len(ids))])
            return [i for i in ids if (i in picked) == entry["held_out"]]
        return ids
    return _of_list(entry, root, where, known)


def _of_list(name: Any, root: Path, where: str, known: set[str]) -> list[str]:
    main = _lists(root) or root / "ImageSets" / "Main"
    listing = main / (text if (text := local(str(name))).endswith(".txt") else f"{text}.txt")
    if not is_file(listing):
        raise InputError(f"{where}: {name!r} should name a list in ImageSets/Main/, but {listing} is not there")
    ids = [_id_of(line.strip(), known) for line in read_text(listing).splitlines() if line.strip()]
    if not ids:
        raise InputError(f"{where}: {listing} lists no images")
    return [*dict.fromkeys(ids)]


def _id_of(line: str, known: set[str]) -> str:
    """A line as what its image is called: `000001`, `000001  1`, `000001.jpg`, `JPEGImages/000001.jpg`."""
    if line in known:
        return line
    if (flagged := _FLAGGED.fullmatch(line)) is not None and flagged[1] not in known:
        return _id_of(flagged[1], known)
    text = local(line if flagged is None else flagged[1])
    path = Path(text)
    if path.suffix.lower() in SUFFIXES | {".xml"}:
        path = path.with_suffix("")
    ends = ["/".join(path.parts[i:]) for i in range(len(path.parts))]
    return next((end for end in ends if end in known), ends[-1] if ends else line)


def _folder(entry: Any, root: Path) -> Path | None:
    """The folder of images with XML files beside them, where a split is one."""
    if not isinstance(entry, str) or not entry.strip():
        return None
    folder = next((p for p in (root / home(entry), root / local(entry)) if is_folder(p)), None)
    return folder if folder is not None and has_xml(folder) else None


def _split_folders(root: Path) -> dict[str, str]:
    """Folders with XML files beside the images, by the split that they are named for."""
    found = {}
    for split, names in _FOLDERS.items():
        for name in names:
            folder = child(root, name)
            if split not in found and folder is not None and folder.is_dir() and has_xml(folder):
                found[split] = folder.name
    return found


def _lists(root: Path) -> Path | None:
    """The folder of lists."""
    sets = child(root, "ImageSets")
    main = None if sets is None else child(sets, "Main")
    return main if main is not None and main.is_dir() else None


def _xml_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".xml")


def _said(entry: Any) -> str:
    return repr(entry.get("list") or "all") if isinstance(entry, dict) else repr(entry)


def _objects(file: Path) -> list[ElementTree.Element]:
    raw = read_bytes(file)
    declared = _ENCODING.match(raw)
    text = declared_text(raw, declared and declared[1].decode("ascii", "replace"), file)
    try:
        return ElementTree.fromstring(_DECLARATION.sub("", text, count=1)).findall("object")
    except ElementTree.ParseError as error:
        raise InputError(f"{file}:{error.position[0]}: not XML ({error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not XML ({type(error).__name__}: {error})") from error


def _text(obj: ElementTree.Element, tag: str, file: Path, number: int) -> str:
    text = (obj.findtext(tag) or "").strip()
    if not text:
        raise InputError(f"{file}: object {number}: has no <{tag}>")
    return text


def _box(obj: ElementTree.Element, file: Path, number: int) -> Box:
    try:
        x1, y1, x2, y2 = (float(_text(obj, f"bndbox/{corner}", file, number)) for corner in _CORNERS)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{file}: object {number}: bndbox should hold numbers ({error})") from error
    if not all(map(isfinite, (x1, y1, x2, y2))):
        raise InputError(f"{file}: object {number}: bndbox holds a number that is not finite")
    if x2 <= x1 or y2 <= y1:
        return x1, y1, x2, y2  # a click without a drag, not an object of one pixel: no area
    return x1 - 1, y1 - 1, x2, y2
