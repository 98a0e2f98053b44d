"""Write files so that a reader sees the old one or the new one, never a part."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from carvana.errors import CarvanaError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; put it in place if the block succeeds.

    The temporary name keeps the ending of `path`, which Keras and gzip go by. Where the block
    fails, what stood at `path` before stands there still.

    Raises:
        CarvanaError: the file cannot be written (disk full, folder read-only).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CarvanaError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose "
            "another place, then run the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text to `path` atomically.

    Raises:
        CarvanaError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
