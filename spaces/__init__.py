"""Search spaces: choices in the grammar, searchable blocks, and spaces as NNI model spaces.

Names are imported when they are first used: what is pure Python (`freeze`, `Space`) loads neither torch nor NNI.
"""

from models.lazy import lazy_exports

_EXPORTS = {
    "CostModel": "cost",
    "Decision": "choices",
    "NASBACKBONE": "model_space",
    "NASDETECTOR": "model_space",
    "Sizes": "sizes",
    "Space": "space",
    "apply_policy": "policy",
    "fixed_arch": "model_space",
    "freeze": "space",
    "gradients_in_place": "elastic_slices",
    "in_upstream_form": "upstream_form",
    "load_into": "model_space",
    "make_supernet": "supernet",
    "read_arch": "space",
    "slice_weights": "model_space",
    "space_of": "space",
    "transform_kernels": "model_space",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
