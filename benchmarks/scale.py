"""x"""

from __future__ import annotations
import sys, json, shutil
from pathlib import Path
import scale_banks as b
from scale_memory import apart

if __name__ == "__main__":
    import os

    scratch = Path(sys.argv[1])
    for n in map(int, sys.argv[2:]):
        c = n // 50
        p = scratch / "s.bank.parquet"
        for step, words in [
            (b.write, (p, c)),
            (b.read, (p, c)),
            (b.verify, (p,)),
            (b.index, (p, "ivf")),
            (b.search, (p, "ivf")),
            (b.sql, (p,)),
        ]:
            try:
                print(
                    n,
                    json.dumps({k: round(v, 3) for k, v in apart(step, *words).items()}),
                    flush=True,
                )
            except Exception as e:
                print(n, step.__name__, repr(e)[:300], flush=True)
        print(n, p.stat().st_size / 2**30)
        for f in scratch.glob("s.bank*"):
            f.unlink()
