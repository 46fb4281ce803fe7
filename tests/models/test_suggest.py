import pytest

from models.catalog import registered
from models.suggest import meant_by


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("Cnov", ["Conv"]),
        ("conv", ["Conv"]),
        ("Convv", ["Conv"]),
        ("Detct", ["Detect"]),
        ("detect", ["Detect"]),
        ("Bottlneck", ["Bottleneck"]),
        ("nn.UpSample", ["nn.Upsample"]),
        ("Conact", ["Concat"]),
        # Modules of their own, which are none of ours.
        ("SPPCSPC", []),
        ("RepConvN", []),
        ("IDetect", []),
        ("C3X", ["C3x"]),
        ("C3y", []),
        ("C2fPSA", []),
        ("nn.Upsampl", ["nn.Upsample"]),
        ("C2fAttn", []),
        ("ConvX", []),
        ("", []),
    ],
)
def test_only_slips_are_taken_for_names(word, meant):
    assert meant_by(word, registered()) == meant
