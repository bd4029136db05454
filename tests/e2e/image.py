"""Builds the image that tests with real guests start from, into a state directory of its own.

    tests/e2e/image.py DIR
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import Place, build_image  # noqa: E402

place = Place(state=Path(sys.argv[1]))
try:
    build_image(place)
finally:
    place.remove()
