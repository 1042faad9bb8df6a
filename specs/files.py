"""The files that a spec names, kept inside a root folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEXT_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class RootedFiles:
    """Reads text files relative to ``base`` that lie under ``root``.

    Text files are embedded in stored objects, so they must lie under the root. Weights are
    referred to, not embedded, and may lie anywhere.
    """

    base: Path
    root: Path

    def lines(self, file: str) -> list[str]:
        """Return the non-blank lines, stripped at the end, of a UTF-8 text file."""
        path = (self.base / file).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(
                f"{file} lies outside {self.root}; move it there, or widen the root with --root"
            )
        if not path.is_file():
            raise ValueError(f"no such file: {file} (looked in {self.base})")
        if path.stat().st_size > TEXT_BYTES_MAX:
            raise ValueError(f"{file} is larger than {TEXT_BYTES_MAX:,} bytes")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8"
            ) from None
        except OSError as error:
            raise ValueError(f"cannot read {file}: {error.strerror}") from None
        return [line.rstrip() for line in text.split("\n") if line.strip()]

    def locate(self, path: str) -> str:
        """Return the absolute path of an existing file or folder."""
        found = (self.base / Path(path).expanduser()).resolve()
        if not found.exists():
            raise ValueError(f"no such file or folder: {path} (looked in {self.base})")
        return str(found)
