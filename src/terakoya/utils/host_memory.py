"""How much memory this process may still take before the system or a container's limit ends it. Without torch, so
that the web process and a watching thread can ask too.
"""

from __future__ import annotations

import resource
from pathlib import Path

import psutil

_NO_LIMIT = 2**60


def host_room_bytes() -> int:
    """Return what this process may still take: free RAM, within any cgroup and address-space limit."""
    available: int = psutil.virtual_memory().available
    limits = (cgroup_room_bytes(), _address_space_room_bytes())
    return min([available, *(limit for limit in limits if limit is not None)])


def host_total_bytes() -> int:
    """Return the memory there is for all programs together: RAM, or a container's limit."""
    total: int = psutil.virtual_memory().total
    limits = [limit for limit, _, _ in _cgroup_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))]
    return min([total, *limits])


def cgroup_room_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the room under the nearest memory limits of this process' cgroups (v2, then v1), None without one.

    Cached file pages count as used by the kernel, which takes them back before it kills anybody.
    """
    rooms = [max(limit - usage + reclaimable, 0) for limit, usage, reclaimable in _cgroup_limits(root, own)]
    return min(rooms, default=None)


def _cgroup_limits(root: Path, own: Path) -> list[tuple[int, int, int]]:
    """Return (limit, usage, reclaimable) of each limit that applies to this process."""
    found = []
    for folder, limit_file, usage_file in _candidates(root, own):
        try:
            limit = (folder / limit_file).read_text().strip()
            usage = int((folder / usage_file).read_text())
        except (OSError, ValueError):
            continue
        if limit.isdigit() and int(limit) < _NO_LIMIT:
            found.append((int(limit), usage, _inactive_file_bytes(folder / "memory.stat")))
    return found


def _candidates(root: Path, own: Path) -> list[tuple[Path, str, str]]:
    """This process' groups and all above them; a container often shows its own group as the root."""
    paths = {"": "/", "memory": "/"}
    try:
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(","):
                paths[name] = path
    except (OSError, ValueError):
        pass
    v2 = [(folder, "memory.max", "memory.current") for folder in _upwards(root, paths[""])]
    v1_files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    return v2 + [(folder, *v1_files) for folder in _upwards(root / "memory", paths["memory"])]


def _upwards(root: Path, path: str) -> list[Path]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _inactive_file_bytes(stat: Path) -> int:
    try:
        fields = dict(line.split() for line in stat.read_text().splitlines())
        return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def _address_space_room_bytes() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    used: int = psutil.Process().memory_info().vms
    return max(limit - used, 0)
