"""The errors a user meets: one line each, naming the file or key and the remedy."""

from collections.abc import Sequence


class CarvanaError(Exception):
    """A stage failed; the message is one line for the user."""

    exit_code = 1


class UsageError(CarvanaError):
    """The command was called wrongly, or a recipe is wrong."""

    exit_code = 2


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM."""

    exit_code = 143


def plural(count: int, noun: str) -> str:
    """Return `1 fault` or `2,000 faults`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def list_faults(summary: str, faults: Sequence[str | CarvanaError], most: int = 20) -> str:
    """List faults under a summary, one a line, at most `most` of them."""
    lines = [summary, *(f"  {fault}" for fault in faults[:most])]
    if len(faults) > most:
        lines.append(f"  and {len(faults) - most} more")
    return "\n".join(lines)


def raise_faults(summary: str, faults: Sequence[str | CarvanaError]) -> None:
    """Raise CarvanaError if there are faults: one by itself, several under a summary."""
    if len(faults) == 1:
        fault = faults[0]
        raise fault if isinstance(fault, CarvanaError) else CarvanaError(fault)
    if faults:
        raise CarvanaError(list_faults(summary, faults))
