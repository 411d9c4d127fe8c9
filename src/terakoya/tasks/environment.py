"""What a worker process gets to see of our environment: an allow-list, so that no key reaches a process that has no
use for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from terakoya.domain.tasks import TaskKind

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
_MORE_PREFIXES: Mapping[TaskKind, tuple[str, ...]] = {
    # A pull runs pip, whose index, certificate and proxy may be set here.
    TaskKind.PULL: ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
}


def worker_environment(kind: TaskKind, environment: Mapping[str, str]) -> dict[str, str]:
    prefixes = _PREFIXES + _MORE_PREFIXES.get(kind, ())
    passed = {name: value for name, value in environment.items() if name in _NAMES or name.startswith(prefixes)}
    if "PYTHONPATH" in passed:  # the worker runs in another directory
        parts = passed["PYTHONPATH"].split(os.pathsep)
        passed["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in parts if part)  # noqa: PTH100
    # Unbuffered: the last lines of a killed worker are in its log.
    return {"OMP_WAIT_POLICY": _THREADS_THAT_WAIT} | passed | {"PYTHONUNBUFFERED": "1"}
