"""Entry point: builds the search graph of a copied shard. A process of its own because the library would stop every
thread of the web process for as long as that takes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from terakoya.exceptions import AppException
from terakoya.security.confinement import die_with_parent

_NICENESS = 10
"""Nobody waits for it."""


def main(folder: str, parent: str) -> None:
    die_with_parent(int(parent))
    os.nice(_NICENESS)
    from terakoya.storage.vector_store.shard import Shard

    try:
        shard = Shard.load(Path(folder))
        shard.optimize()
        shard.flush()
        shard.close()
    except AppException as error:
        sys.stderr.write(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
