"""What was found, mended and left out while a detection split was indexed."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts of one split. `str(report)` is one line."""

    split: str
    images: int = 0  # readable, in the index
    boxes: int = 0  # kept
    counted: str = "boxes"  # what these are: of label maps regions, one of each class in an image
    background: int = 0  # images without a box
    missing_labels: int = 0  # images without a label file; they count as background too
    first_missing: str = ""  # the first of those files
    clipped: int = 0  # boxes partly outside the image by more than a pixel, cut at its edge
    outside: int = 0  # boxes wholly outside, dropped
    zero_area: int = 0  # dropped
    duplicates: int = 0  # rows that repeat another, dropped
    skipped: int = 0  # COCO crowds and VOC difficult objects: not learnt, and ignored where AP is measured
    others: int = 0  # boxes of classes that are not wanted, left out
    orphans: int = 0  # COCO annotations of images that are not listed, left out
    unread: Counter[str] = field(default_factory=Counter)  # pictures whose suffix is not read
    note: str = ""  # how the split was made, where nobody said
    constant: int = 0  # images of one colour
    corrupt: list[str] = field(default_factory=list)  # images missing, unreadable or truncated, left out

    def __str__(self) -> str:
        notes = {
            "background": self.background,
            "without label file": self.missing_labels,
            "clipped": self.clipped,
            "outside (dropped)": self.outside,
            "without area (dropped)": self.zero_area,
            "duplicate (dropped)": self.duplicates,
            "crowd or difficult (ignored in AP)": self.skipped,
            "of other classes (left out)": self.others,
            "of images not listed (left out)": self.orphans,
            **{f"{suffix} (not read)": number for suffix, number in sorted(self.unread.items())},
            "of one colour": self.constant,
            "corrupt (left out)": len(self.corrupt),
        }
        said = [f"{count:,} {what}" for what, count in notes.items() if count]
        note = f" ({self.note})" if self.note else ""
        return (
            f"{self.split}: {self.images:,} images, {self.boxes:,} {self.counted}"
            + "".join(f", {s}" for s in said)
            + note
        )
