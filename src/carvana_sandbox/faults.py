"""Ways for the mock server to misbehave: refuse, drop, hold, damage, never score."""

import contextlib
import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from carvana.errors import UsageError


@dataclass
class Fault:
    """One way to misbehave.

    `kind` is a status to answer ("401", "503", ...), or "drop" (cut a transfer short), "hold"
    (stop sending, keep the connection), "flip" (damage one bit of a file), "pending" (never score
    a submission) or "failed" (fail its scoring). A refused submission is "400" on
    "CreateSubmission".
    """

    kind: str
    on: str = ""  # only where the request's path holds this: "train.zip", "ListDataFiles", ...
    times: int = 1  # how many times; 0: always
    after: int = 0  # bytes of a transfer that pass before "drop" or "hold"
    retry_after: str = ""  # that header, with a status
    message: str = ""  # the message instead of the usual one

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read a fault from words: `503 times=2`, `drop on=train.zip after=100000`.

        Raises:
            UsageError: an unknown kind or setting.
        """
        try:
            kind, *settings = shlex.split(text) or [""]
        except ValueError as error:
            raise UsageError(f"fault {text!r}: {error}") from error
        status = kind.isdecimal() and 400 <= int(kind) <= 599
        if kind not in ("drop", "hold", "flip", "pending", "failed") and not status:
            raise UsageError(f"fault {text!r}: {kind!r} is neither an HTTP status nor a known kind")
        types = {field.name: field.type for field in fields(cls) if field.name != "kind"}
        values = {}
        for name, _, value in (setting.partition("=") for setting in settings):
            if name not in types or (types[name] is int and not value.isdecimal()):
                raise UsageError(f"fault {text!r}: {name}={value} is not a setting of a fault")
            values[name] = types[name](value)
        return cls(kind, **values)


class Faults:
    """The faults still to come; may be used from several threads."""

    def __init__(self, faults: Sequence[Fault] = ()):
        self._faults = list(faults)
        self._lock = threading.Lock()

    def append(self, fault: Fault) -> None:
        """Add one more."""
        self._faults.append(fault)

    def take(self, where: str, *kinds: str, reached: int | None = None) -> Fault | None:
        """Return the first fault that applies, counted, or None.

        Args:
            where: the request's path or the file's name.
            kinds: the kinds wanted; "status" stands for all statuses.
            reached: bytes of a transfer so far: only faults that end it before that many.
        """
        with self._lock:
            for fault in self._faults:
                kind = "status" if fault.kind.isdecimal() else fault.kind
                if kind not in kinds or fault.on not in where:
                    continue
                if reached is not None and fault.after >= reached:
                    continue
                if fault.times == 1:
                    self._faults.remove(fault)
                fault.times = max(fault.times - 1, 0)
                return fault
        return None

    def applied(
        self, chunks: Iterator[bytes], name: str, start: int, middle: int, closing: threading.Event
    ) -> Iterator[bytes]:
        """Pass a file's bytes on until a fault applies to them.

        Args:
            chunks: the bytes.
            name: the file's.
            start: where in the file they begin.
            middle: the byte of the file that "flip" damages.
            closing: set when the server stops, which ends a "hold".
        """
        flip = self.take(name, "flip")
        sent = 0
        with contextlib.closing(chunks):
            for chunk in chunks:
                place = middle - start - sent
                if flip and 0 <= place < len(chunk):
                    chunk = chunk[:place] + bytes([chunk[place] ^ 1]) + chunk[place + 1 :]
                reached = sent + len(chunk)
                stop = self.take(name, "drop", "hold", reached=reached)
                if stop:
                    yield chunk[: max(stop.after - sent, 0)]
                    if stop.kind == "hold":
                        closing.wait()
                    raise ConnectionAbortedError(f"dropped {name}, as asked")
                yield chunk
                sent = reached
