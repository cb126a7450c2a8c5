"""Command lines whose errors are one sentence."""

import argparse
import sys


def command(work) -> int:
    """The exit code of a command line's `work()`: what its user can mend is one sentence, not a traceback."""
    try:
        return work()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one sentence too: the usage is what --help shows."""

    def error(self, message):
        self.exit(2, f"error: {message}; {self.prog} --help shows what is allowed\n")
