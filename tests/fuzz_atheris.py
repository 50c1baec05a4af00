"""Give the decoders inputs that libFuzzer finds by coverage: `make fuzz`, or `python -m tests.fuzz_atheris CORPUS`.

Atheris follows the Python code only, not the JSON parser inside pydantic; the first byte chooses the decoder. No test
needs it. A crash is written to a file, which the same command reads again: `python -m tests.fuzz_atheris FILE`.
"""

import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["crypto", "federation", "policies", "silo_node", "analyst"]):
    from crypto.errors import CryptoError
    from tests.fuzzing import decoders

DECODERS = list(decoders().values())


def read(data: bytes) -> None:
    """Read the input with the decoder that its first byte names; what is raised but a refusal is a crash."""
    if data:
        try:
            DECODERS[data[0] % len(DECODERS)].read(data[1:])
        except CryptoError:
            return


def _write_samples(corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for number, decoder in enumerate(DECODERS):
        for index, sample in enumerate(decoder.samples):
            (corpus / f"{decoder.name}-{index}").write_bytes(bytes([number]) + sample)


def main(arguments: list[str]) -> Any:
    corpus = Path(arguments[-1])
    if not corpus.is_file():
        _write_samples(corpus)
    atheris.Setup(arguments, read)
    return atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
