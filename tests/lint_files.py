#!/usr/bin/env python3
"""The sources that clang-tidy has to read to have seen what changed since a commit.

usage: tests/lint_files.py COMMIT    (prints paths, one per line; nothing if nothing changed)

A changed source is one of them. A changed header is read through its own source, or else through
the first source that includes it, directly or not: findings inside the header show in any.
"""

import re
import subprocess
import sys
from pathlib import Path

INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.split()


def headers_of(path, seen):
    """All headers of ours below `path`, which includes are written from the root."""
    for name in INCLUDE.findall(Path(path).read_text()):
        if name not in seen and Path(name).is_file():  # else generated, or gone
            seen.add(name)
            headers_of(name, seen)
    return seen


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    changed = [path for path in git("diff", "--name-only", "--diff-filter=d", sys.argv[1])]
    files = {path for path in changed if path.endswith(".cc")}
    headers = {path for path in changed if path.endswith(".h")}
    reads = {source: headers_of(source, set()) for source in git("ls-files", "*.cc") if Path(source).is_file()} if headers else {}
    for header in sorted(headers):
        readers = sorted(source for source in reads if header in reads[source])
        own = header[: -len(".h")] + ".cc"
        if own in readers:
            files.add(own)
        elif readers and not files.intersection(readers):
            files.add(readers[0])
    print("\n".join(sorted(files)))


if __name__ == "__main__":
    main()
