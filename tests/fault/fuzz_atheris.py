"""The targets of ``fuzz.py`` under atheris (libFuzzer), which follows the code that an input reaches.

    pip install atheris && python -m tests.fault.fuzz_atheris [TARGET ...] [-runs=N] [-seed=N]

The first finding ends it, and its input is in the file that libFuzzer names.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from pathlib import Path

import atheris  # type: ignore[import-not-found,unused-ignore]

with atheris.instrument_imports(include=["machinery_compat"]):
    from machinery_compat import errors
    from tests.fault.fuzz import targets


def main() -> None:
    known = targets()
    chosen = [known[name] for name in sys.argv[1:] if name in known] or list(known.values())
    options = [option for option in sys.argv[1:] if option.startswith("-")]
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, target in enumerate(chosen):
        for index, data in enumerate(target.seeds):
            (corpus / f"{number}-{index}").write_bytes(bytes([number]) + data)

    def one_input(data: bytes) -> None:
        if not data:
            return
        # The first byte says which target it is.
        with contextlib.suppress(errors.MachineryError):
            chosen[data[0] % len(chosen)].run(data[1:])

    warnings.simplefilter("ignore")
    atheris.Setup([sys.argv[0], "-timeout=1", "-max_len=8192", "-len_control=0", *options, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
