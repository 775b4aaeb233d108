"""Compiles Python for the image; a program of its own, so that the same files make the same bytes.

Standard input tells the source, the name it has in the image and the target of each, a line each,
separated by tabs. What it makes is believed without a look at any source.
"""

import py_compile
import sys


def main() -> None:
    """Compiles all; the first that is no Python ends it with its error."""
    for line in sys.stdin:
        source, name, target = line.rstrip("\n").split("\t")
        py_compile.compile(
            source,
            cfile=target,
            dfile=name,
            doraise=True,
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    main()
