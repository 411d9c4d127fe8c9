"""Parsers that misbehave, as another package would bring them: written to a folder that children find by
PYTHONPATH, with entry points of their own.
"""

from __future__ import annotations

from pathlib import Path

_SOURCE = """
import ctypes, os, signal, socket, subprocess, sys, time
from pathlib import Path
from terakoya.rag.indexing.parsers.parsed import Block, BlockKind, Parsed

def hangs(path): time.sleep(600)
def spins(path):
    while True: pass
def hoards(path): return Parsed("x" * 10**12)
def hoards_slowly(path):
    held = []
    while True: held.append(bytearray(1 << 20))
def crashes(path): ctypes.string_at(0)
def aborts(path): os.abort()
def exits(path): os._exit(3)
def raises(path): raise KeyError("lost")
def recurses(path): return recurses(path)
def prints(path):
    print("noise on standard output"); os.write(1, b"more noise"); return Parsed("calm text")
def wrong_offsets(path):
    from terakoya.rag.indexing import parsed_document
    parsed_document.chunk = lambda parsed, count: (parsed_document.Chunk(0, 999),)
    return Parsed("short text")
def overlaps(path):
    from terakoya.rag.indexing import parsed_document
    parsed_document.chunk = lambda parsed, count: (parsed_document.Chunk(0, 5), parsed_document.Chunk(3, 9))
    return Parsed("short text")
def writes_garbage(path):
    for number in range(3, 20):
        try: os.write(number, b"{not json\\n")
        except OSError: pass
    return Parsed("text")
def floods(path):
    for number in range(3, 20):
        try:
            while True: os.write(number, b"x" * (1 << 20))
        except OSError: pass
    return Parsed("text")
def _tried(action):
    try: action()
    except OSError: return "refused"
    return "allowed"
def pries(path):
    secret = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0]).parent / "secret.txt"
    def connect(): socket.create_connection(("127.0.0.1", int((path).read_text())), 2).close()
    found = {
        "read": _tried(lambda: secret.read_bytes()),
        "write": _tried(lambda: (path.parent / "new").write_text("x")),
        "connect": _tried(connect),
        "program": _tried(lambda: subprocess.run([sys.executable, "-c", ""])),
        "signal": _tried(lambda: os.kill(os.getppid(), 0)),
        "key": "TERAKOYA_API_KEYS" in os.environ,
    }
    return Parsed(" ".join(f"{name}={value}" for name, value in found.items()))
def leaves_a_child(path):
    child = os.fork()
    if child == 0: time.sleep(300); os._exit(0)
    return Parsed(f"pid {child}")
def tells_pid(path):
    (Path(os.environ["TMPDIR"]) / "pid").write_text(str(os.getpid())); time.sleep(600)
"""
_NAMES = [line.split("(")[0][4:] for line in _SOURCE.splitlines() if line.startswith("def ") and line[4] != "_"]


def install_hostile_parsers(folder: Path) -> Path:
    """Write them as an installed package and return what belongs on PYTHONPATH."""
    metadata = folder / "hostile_parsers-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "hostile_parsers.py").write_text(_SOURCE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-parsers\nVersion: 1.0\n")
    rows = "\n".join(f"{name} = hostile_parsers:{name}" for name in _NAMES)
    (metadata / "entry_points.txt").write_text(f"[terakoya.parsers]\n{rows}\n")
    return folder
