"""Detections in people's own images and videos: what `detect.py` calls."""

from __future__ import annotations

import errno
import glob
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from data import UnreadableImageError, letterbox, read_rgb, to_tensor
from data.chosen import class_numbers
from data.images import SUFFIXES, is_constant, list_images, unread_in
from data.outline import Crop, polygons_of, run_lengths
from data.places import home
from models.errors import InputError
from models.files import atomic, write_text

from ..run.folder import RunFolder
from ..tasks.masks import crops_of
from ..tasks.pixels import label_map_of
from .detectors import Detector, computed, detections_of, finds_of, open_detector
from .draw import draw_detections, draw_label_map, draw_masks
from .options import Detection

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
# Pillow writes these from RGB under their own suffix; pictures of others become PNG.
_WRITTEN_AS_READ = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_DEFAULT_FPS = 25.0  # of a video that does not say
_FRAMES_A_LINE = 100


@dataclass(frozen=True)
class Source:
    """A file to detect in, and what its results are called within the run's folder."""

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass
class _Found:
    """What a run has found so far."""

    records: list[dict[str, Any]] = field(default_factory=list)
    num_files: int = 0
    num_detections: int = 0
    skipped: list[str] = field(default_factory=list)


def find_sources(given: Sequence[str]) -> list[Source]:
    """The images and videos of files, folders (with those below) and patterns, each once, in the order given.

    Raises
    ------
    InputError
        Something given is not there, or holds nothing to detect in.
    """
    found: dict[Path, Path] = {}
    for text in given:
        if not text.strip():
            raise InputError("--source '': is empty; right would be files, folders or patterns")
        path = home(text)
        if "://" in text:
            raise InputError(f"--source {text}: streams are not supported; right would be files, folders or patterns")
        if path.is_dir():
            videos = [p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
            files = {p: p.relative_to(path) for p in sorted([*list_images(path), *videos])}
            if unread := ", ".join(f"{number} {suffix}" for suffix, number in sorted(unread_in(path).items())):
                print(f"--source {text}: {unread} left out, which cannot be read", file=sys.stderr, flush=True)
        elif path.is_file():
            files = {path: Path(path.name)}
        elif glob.has_magic(text):
            matches = sorted(Path(p) for p in glob.glob(text, recursive=True))
            files = {p: Path(p.name) for p in matches if p.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES and p.is_file()}
        else:
            raise InputError(f"--source {text}: no such file or folder")
        if not files:
            raise InputError(
                f"--source {text}: no images or videos there; known are {' '.join(sorted(SUFFIXES | VIDEO_SUFFIXES))}"
            )
        for file, name in files.items():
            found.setdefault(file, name)
    taken: set[Path] = set()
    sources = []
    for file, name in found.items():
        free, number = name, 2
        # Without the suffix: labels of a.jpg and a.png would be the same file.
        while free.with_suffix("") in taken:
            free, number = name.with_stem(f"{name.stem}_{number}"), number + 1
        taken.add(free.with_suffix(""))
        sources.append(Source(file, free))
    return sources


def detect_image(
    detector: Detector,
    image: np.ndarray,
    imgsz: int | None = None,
    conf: float = 0.25,
    iou: float = 0.45,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
    rect: bool = False,
) -> Tensor:
    """Detections in one image: the first of what `segment_image` gives."""
    return segment_image(detector, image, imgsz, conf, iou, max_det, classes, rect)[0]


def segment_image(
    detector: Detector,
    image: np.ndarray,
    imgsz: int | None = None,
    conf: float = 0.25,
    iou: float = 0.45,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
    rect: bool = False,
) -> tuple[Tensor, list[Crop] | None]:
    """Detections in one image, and their masks.

    Parameters
    ----------
    image
        uint8 (height, width, 3), RGB.
    rect
        Pad the shorter side to no more than a multiple of the stride: faster, but objects near the added border may
        be seen a little differently. Not for ONNX files, which take squares.

    Returns
    -------
    (n, 6): x1, y1, x2, y2 in pixels of the image, confidence, class; most confident first. And a mask of each, or None
    where the detector finds boxes alone.
    """
    canvas, box = letterbox(image, imgsz or detector.imgsz, rect, detector.stride)
    predicted, prototypes = computed(detector, detector.prepare(to_tensor(canvas)[None]))
    (found,) = detections_of(detector, predicted, 1, conf, iou, max_det, classes=classes)
    boxes = clip_boxes_to_image(box.to_image(found[:, :4]), (image.shape[0], image.shape[1]))
    masks = None if prototypes is None else crops_of(prototypes[0].cpu(), found[:, 6:], boxes, box)
    return torch.cat((boxes, found[:, 4:6]), 1), masks


def label_image(detector: Detector, image: np.ndarray, imgsz: int | None = None, rect: bool = False) -> np.ndarray:
    """The likeliest class of each pixel of an image, uint8 (height, width); the rest as of `segment_image`."""
    canvas, box = letterbox(image, imgsz or detector.imgsz, rect, detector.stride)
    logits = detector.predict(detector.prepare(to_tensor(canvas)[None]))
    return label_map_of(logits[0], box).cpu().numpy()


def predict(options: Detection, run: RunFolder) -> dict[str, Any]:
    """Detect in every file, and write pictures, labels and JSON into the run's folder.

    Files that cannot be read are named and left out.

    Returns
    -------
    ``files``, ``detections``: how many; ``skipped``: paths.

    Raises
    ------
    InputError
        There is nothing to detect in, or none of the files can be read.
    """
    if not 0 <= options.conf < 1 or not 0 < options.iou <= 1:
        raise InputError(f"--conf {options.conf} --iou {options.iou}: shares from 0 to 1 are meant")
    sources = find_sources(options.source)
    detector = open_detector(options.weights, options.device)
    work = (_LabelMaps if finds_of(detector) == "labels" else _Work)(options, run, detector)
    print(f"{len(sources):,} files, {options.weights} ({detector.dtype}), {work.imgsz} pixels", flush=True)
    for number, source in enumerate(sources, start=1):
        prefix = f"{number}/{len(sources)} {source.path}"
        try:
            (work.video if source.is_video else work.image)(source, prefix)
            work.found.num_files += 1
        except UnreadableImageError as e:
            work.found.skipped.append(str(source.path))
            print(f"{prefix}: skipped, cannot be read ({e})", file=sys.stderr, flush=True)
    found = work.found
    if not found.num_files:
        raise InputError(f"none of the {len(sources)} files of --source {' '.join(options.source[:3])} can be read")
    run.write_config(asdict(options))
    if options.save_json:
        run.write_json("detections.json", found.records)
    skipped = f", {len(found.skipped)} skipped" if found.skipped else ""
    what = "label maps" if isinstance(work, _LabelMaps) else "detections"
    print(f"{found.num_detections:,} {what} in {found.num_files:,} files{skipped}; results in {run.path}")
    return {"files": found.num_files, "detections": found.num_detections, "skipped": found.skipped}


class _Work:
    """Detects in one file after the other."""

    def __init__(self, options: Detection, run: RunFolder, detector: Detector) -> None:
        self.options, self.run, self.detector = options, run, detector
        self.imgsz = detector.check_imgsz(options.imgsz or detector.imgsz)
        self.classes = None if options.classes is None else class_numbers(options.classes, detector.names)
        if options.rect and not detector.rect:
            raise InputError(f"--rect: {options.weights} takes squares only")
        if detector.nms is not None and options.conf < detector.nms.conf:
            raise InputError(
                f"--conf {options.conf}: NMS at confidence {detector.nms.conf} is in the graph of {options.weights}"
            )
        self.found = _Found()

    def image(self, source: Source, prefix: str) -> None:
        """Detect in an image file."""
        image = read_rgb(source.path)
        started = time.perf_counter()
        detections, masks = self._detect(image)
        ms = 1000 * (time.perf_counter() - started)
        blank = ", the image is of one colour" if is_constant(image) else ""
        print(f"{prefix}: {self._summary(detections)}{blank} ({ms:.1f} ms)", flush=True)
        self._note(source, image, detections, masks)
        if self.options.save:
            suffix = source.name.suffix if source.name.suffix.lower() in _WRITTEN_AS_READ else ".png"
            with atomic((self.run.path / source.name).with_suffix(suffix)) as temporary:
                Image.fromarray(self._drawn(image, detections, masks)).save(temporary, quality=95)

    def video(self, source: Source, prefix: str) -> None:
        """Detect in a video file, frame by frame; the video with boxes is an MP4 without sound."""
        video = _Video(source.path)
        started, num_frames, num_before = time.perf_counter(), 0, self.found.num_detections
        with ExitStack() as stack:
            write = None
            if self.options.save:
                path = (self.run.path / source.name).with_suffix(".mp4")
                write = stack.enter_context(_written_video(path, video.first.shape, video.fps))
            for frame in video:
                detections, masks = self._detect(frame)
                self._note(source, frame, detections, masks, num_frames)
                num_frames += 1
                if write is not None:
                    write(self._drawn(frame, detections, masks))
                if num_frames % _FRAMES_A_LINE == 0:
                    print(f"{prefix}: {num_frames:,} frames …", flush=True)
        ms = 1000 * (time.perf_counter() - started) / num_frames
        num_found = self.found.num_detections - num_before
        print(f"{prefix}: {num_frames:,} frames, {num_found:,} detections ({ms:.1f} ms a frame)", flush=True)

    def _detect(self, image: np.ndarray) -> tuple[Any, list[Crop] | None]:
        o = self.options
        return segment_image(self.detector, image, self.imgsz, o.conf, o.iou, o.max_det, self.classes, o.rect)

    def _drawn(self, image: np.ndarray, detections: Any, masks: list[Crop] | None) -> np.ndarray:
        if masks is not None:
            image = draw_masks(image, detections, masks)
        return draw_detections(image, detections, self.detector.names)

    def _summary(self, detections: Any) -> str:
        counts = Counter(detections[:, 5].int().tolist())
        return ", ".join(f"{n} {self.detector.names[c]}" for c, n in sorted(counts.items())) or "nothing"

    def _note(
        self,
        source: Source,
        image: np.ndarray,
        detections: Any,
        masks: list[Crop] | None,
        frame: int | None = None,
    ) -> None:
        """Keep what was found for the JSON, and write it as a label file."""
        self.found.num_detections += len(detections)
        height, width = image.shape[:2]
        each: Sequence[Crop | None] = [None] * len(detections) if masks is None else masks
        if self.options.save_json:
            self.found.records.append(
                {
                    "file": str(source.path),
                    **({} if frame is None else {"frame": frame}),
                    **{"height": height, "width": width},
                    "detections": [
                        {
                            "class": int(row[5]),
                            "name": self.detector.names[int(row[5])],
                            "confidence": round(row[4], 5),
                            "box": [round(v, 2) for v in row[:4]],
                            **({} if mask is None else {"segmentation": run_lengths(mask, (height, width))}),
                        }
                        for row, mask in zip(detections.tolist(), each, strict=True)
                    ],
                }
            )
        if self.options.save_crop:
            self._crop(source, image, detections, frame)
        if self.options.save_txt:
            size = detections.new_tensor((width, height, width, height))
            if masks is None:
                shapes = (box_convert(detections[:, :4], "xyxy", "cxcywh") / size).tolist()
            else:
                shapes = [_polygon(mask, width, height) for mask in masks]
            lines = [
                " ".join((str(int(c)), *(f"{v:.6f}" for v in shape), *self._confidence(score))) + "\n"
                for shape, (score, c) in zip(shapes, detections[:, 4:].tolist(), strict=True)
                if shape  # a mask may be empty
            ]
            write_text(self.run.path / "labels" / _of_frame(source, frame).with_suffix(".txt"), "".join(lines))

    def _confidence(self, score: float) -> tuple[str, ...]:
        return (f"{score:.5f}",) if self.options.save_conf else ()

    def _crop(self, source: Source, image: np.ndarray, detections: Tensor, frame: int | None) -> None:
        """Write what is in each box as a JPEG in the folder of its class; what is less than a pixel is left out."""
        name = _of_frame(source, frame)
        for number, (x1, y1, x2, y2, _, label) in enumerate(detections.tolist()):
            part = image[int(y1) : ceil(y2), int(x1) : ceil(x2)]
            if part.size:
                folder = self.run.path / "crops" / _folder_name(self.detector.names[int(label)])
                with atomic(folder / name.with_name(f"{name.stem}_{number}.jpg")) as temporary:
                    Image.fromarray(part).save(temporary, quality=95)


class _LabelMaps(_Work):
    """Gives each pixel of one file after the other a class."""

    def __init__(self, options: Detection, run: RunFolder, detector: Detector) -> None:
        super().__init__(options, run, detector)
        for name, given in (("--classes", options.classes), ("--save-crop", options.save_crop)):
            if given:
                raise InputError(f"{name}: {options.weights} gives classes of pixels; right would be a detector")

    def _detect(self, image: np.ndarray) -> tuple[Any, list[Crop] | None]:
        return label_image(self.detector, image, self.imgsz, self.options.rect), None

    def _drawn(self, image: np.ndarray, detections: Any, masks: list[Crop] | None) -> np.ndarray:
        return draw_label_map(image, detections)

    def _shares(self, classes: np.ndarray) -> dict[str, float]:
        """Of the pixels, by class, the largest first."""
        labels, pixels = np.unique(classes, return_counts=True)
        found = sorted(zip(pixels.tolist(), labels.tolist(), strict=True), reverse=True)
        return {self.detector.names[label]: round(n / classes.size, 4) for n, label in found}

    def _summary(self, detections: Any) -> str:
        return ", ".join(f"{100 * share:.0f} % {name}" for name, share in self._shares(detections).items())

    def _note(
        self,
        source: Source,
        image: np.ndarray,
        detections: Any,
        masks: list[Crop] | None,
        frame: int | None = None,
    ) -> None:
        self.found.num_detections += 1
        height, width = image.shape[:2]
        of_frame = {} if frame is None else {"frame": frame}
        record = {"file": str(source.path), **of_frame, "height": height, "width": width}
        self.found.records.append({**record, "classes": self._shares(detections)})
        if self.options.save_txt:
            name = _of_frame(source, frame)
            with atomic(self.run.path / "labels" / name.with_suffix(".png")) as temporary:
                Image.fromarray(detections).save(temporary)


def _polygon(mask: Crop, width: int, height: int) -> list[float]:
    """The corners of a mask's largest part, x, y, x, y, … as shares of the image; none of an empty one."""
    rings = polygons_of(mask)
    return (rings[0] / [width, height]).reshape(-1).tolist() if rings else []


def _of_frame(source: Source, frame: int | None) -> Path:
    """What the results of a source, or of a frame of it, are called."""
    return source.name if frame is None else source.name.with_stem(f"{source.name.stem}_{frame:06d}")


def _folder_name(name: str) -> str:
    """A class's name as that of a folder."""
    plain = "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name).strip(". ")
    return plain[:100] or "_"


class _Video:
    """The frames of a video file, each uint8 (height, width, 3), RGB. Raises UnreadableImageError if there is none.

    Attributes
    ----------
    first
        The first frame.
    fps
        Frames a second.
    """

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        first = self._read()
        if first is None:
            raise UnreadableImageError("no video that OpenCV can read")
        self.first = first
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else _DEFAULT_FPS

    def __iter__(self) -> Iterator[np.ndarray]:
        frame: np.ndarray | None = self.first
        while frame is not None:
            yield frame
            frame = self._read()

    def _read(self) -> np.ndarray | None:
        good, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None


@contextmanager
def _written_video(path: Path, shape: Sequence[int], fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield what writes a frame to an MP4 file, which is there when all are written."""
    with atomic(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (shape[1], shape[0]))
        if not writer.isOpened():
            raise InputError(f"{path}: this OpenCV cannot write MP4; right would be --no-save")

        written = 0

        def write(frame: np.ndarray) -> None:
            nonlocal written
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            written += 1

        yield write
        writer.release()
        # OpenCV does not say that a disk was full.
        if cv2.VideoCapture(str(temporary)).get(cv2.CAP_PROP_FRAME_COUNT) != written:
            raise OSError(errno.EIO, "could not be written whole; there may be no room for it", str(path))
