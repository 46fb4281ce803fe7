"""From pictures with boxes and a device to the detector that is to be shipped: what `find_detector.py` calls."""
