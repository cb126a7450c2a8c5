"""Files that appear whole or not at all, and their sums."""

import hashlib
import os
import socket
import uuid
from contextlib import contextmanager
from pathlib import Path

SILENCE = 30  # s without a byte after which a download is given up


def check_folder(name: str, value) -> Path:
    """A folder that is there or can be made. ValueError for what is no path of a folder."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError(f"{name} is {value!r}; it must be the path of a folder")
    path = Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name} is {path}, which is a file; it must be the path of a folder")
    return path


def write_file(file: Path, content: bytes) -> None:
    """The file appears whole or not at all. OSError where it cannot be written."""
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.part")  # its own: others may write the same file
    try:
        with open(part, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, file)
    except OSError as error:
        why = f"{file} cannot be written ({error.strerror})"
        raise type(error)(f"{why}; everything that was complete is kept, and the same command goes on from there") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def no_long_silence():
    """TimeoutError where a host that was connected says nothing for SILENCE seconds, which by default is waited for."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
