"""What a child process gets to see of our environment: an allow-list, so that no key reaches a process that has no
use for it. Knows nothing of what the child does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_THREADS_THAT_WAIT = "passive"
"""OpenMP threads that wait sleep instead of spinning. Two processes that compute on the same cores (a run and the
model server, say) otherwise take more than half of each other's speed; benchmarks/contention.py measures it."""
_NAMES = frozenset(
    {
        *("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "USER", "LOGNAME", "TMPDIR", "TMP", "TEMP"),
        *("LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE"),
    }
)
_PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "ONEDNN_", "TORCH_", "PYTORCH_", "CUDA_")


def child_environment(environment: Mapping[str, str], *, more_prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the part of ``environment`` that a child may see; ``more_prefixes``: of names this one needs besides."""
    prefixes = _PREFIXES + more_prefixes
    passed = {name: value for name, value in environment.items() if name in _NAMES or name.startswith(prefixes)}
    if "PYTHONPATH" in passed:  # the child may run in another directory
        parts = passed["PYTHONPATH"].split(os.pathsep)
        passed["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in parts if part)  # noqa: PTH100
    # Unbuffered: the last lines of a killed child are in its log.
    return {"OMP_WAIT_POLICY": _THREADS_THAT_WAIT} | passed | {"PYTHONUNBUFFERED": "1"}
