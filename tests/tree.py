"""The repository as its tests see it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = tuple(sorted(place.name for place in (ROOT / "loopscope").iterdir() if place.is_symlink()))
"""The folders that are imported as ``loopscope.<room>``, through links (decision 0014)."""
EVERYWHERE = (*ROOMS, "loopscope")
"""The folders that hold code of ours."""
