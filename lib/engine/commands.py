"""Command lines whose errors are one sentence."""

import argparse
import functools
import sys

#: What several commands take: name -> default, and what it says.
OPTIONS = {
    "profile": ("quick", "smoke, quick or paper"),
    "dataset": ("digits", "digits, cifar10 or folder:PATH"),
    "data-dir": ("data", "where CIFAR-10 lies or is downloaded to"),
    "seeds": ("0", "as in 0,1,2"),
    "outputs": ("outputs", "where the runs are kept"),
}


def command(main):
    """A decorator of a command line's main, which returns its exit code: what its user can mend is one sentence, not a
    traceback."""

    @functools.wraps(main)
    def in_one_sentence(*args) -> int:
        try:
            return main(*args)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
            return 130

    return in_one_sentence


class Parser(argparse.ArgumentParser):
    """argparse for `python -m <module>` with some of OPTIONS, whose errors are one sentence: the usage is what --help shows."""

    def __init__(self, module: str, description: str, *options: str):
        super().__init__(prog=f"python -m {module}", description=description.split("\n\n")[0])
        for name in options:
            default, words = OPTIONS[name]
            self.add_argument(f"--{name}", default=default, help=f"{words} (default: {default})")

    def error(self, message):
        self.exit(2, f"error: {message}; {self.prog} --help shows what is allowed\n")
