"""Commands: run in this process, and as the documents show them."""

import itertools
import re
import shlex

from vbpr.cli import app

START = re.compile(r"^\s*(?:\$ )?(?:\w+=\S+ )*(?:vbpr|python -m vbpr|python cli\.py)\s+(.*)$")


def run(*words):
    try:
        app([str(word) for word in words], standalone_mode=False)
    except SystemExit as left:
        return left.code
    return 0


def shown(path):
    """Each command in the fenced blocks of a document: the words after `vbpr`."""
    for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found = START.match(line)
            if found:
                words = shlex.split(re.split(r"\s->", found[1])[0], comments=True)
                yield list(itertools.takewhile(lambda word: word not in ("&&", "|", ">"), words))
