"""The values of long domains at the analyst: read from a directory, or asked of a silo once.

Promise: values are used only if they have the hash that a signed catalogue or a signed request names, wherever they
come from. docs/protocol.md section 7.5.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from analyst.errors import AnalystError
from crypto.errors import CryptoError, WireError
from crypto.keys import SigningKey
from crypto.rounds.messages import Failed
from crypto.wire import is_envelope, sign, unverified
from federation.errors import FederationError
from federation.files import replace_file
from policies.domains import MAX_DOMAIN_BYTES, LongDomain, with_text
from policies.requests.catalogue import DOMAIN_MAGIC, Catalogue, DomainRequest

if TYPE_CHECKING:
    from analyst.link import Link

DIRECTORY = "domains"  # beside consilo.toml: one file for each domain, named by its hash
MAX_KEPT_BYTES = 1 << 30  # of the files; the oldest are removed first, and asked for again when they are needed
MAX_FOUND = 16  # in memory


class Domains:
    """Finds the values of long domains; each is asked of a silo at most once."""

    def __init__(self, home: Path, link: "Link", federation: str, analyst: str, key: SigningKey) -> None:
        self._path, self._link = home / DIRECTORY, link
        self._federation, self._analyst, self._key = federation, analyst, key
        self._found: dict[bytes, LongDomain] = {}

    def find(self, domain: LongDomain, silos: Callable[[], Mapping[str, Catalogue]], now: int) -> LongDomain:
        """Return a domain with its values, of this directory or of a silo whose catalogue names it.

        Raises AnalystError if there is none, or no silo sends it.
        """
        if domain.values is not None:
            return domain
        kept = self._found.get(domain.digest)
        if kept != domain:
            kept = self._kept(domain) or self._asked(domain, silos(), now)
            while len(self._found) >= MAX_FOUND:
                del self._found[next(iter(self._found))]
            self._found[domain.digest] = kept
        return kept

    def _file(self, domain: LongDomain) -> Path:
        return self._path / f"{domain.digest.hex()}.txt"

    def _kept(self, domain: LongDomain) -> LongDomain | None:
        """Return the domain of the directory; None if it is not there, or not what its name says."""
        with suppress(OSError, WireError), self._file(domain).open("rb") as opened:
            return with_text(domain, opened.read(MAX_DOMAIN_BYTES + 1))
        return None

    def _make_room(self, length: int) -> None:
        files = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in self._path.glob("*.txt"))
        left = sum(size for _, size, _ in files)
        for _, size, file in files:
            if left + length <= MAX_KEPT_BYTES:
                return
            file.unlink(missing_ok=True)
            left -= size

    def _asked(self, domain: LongDomain, silos: Mapping[str, Catalogue], now: int) -> LongDomain:
        """Ask the silos that name a domain, one after the other, and keep what the first one sends."""
        reasons = []
        for silo in (silo for silo, catalogue in silos.items() if catalogue.domains.get(domain.digest) == domain):
            message = DomainRequest(
                federation=self._federation, analyst=self._analyst, silo=silo, hash=domain.digest, created_at=now
            )
            try:
                answer = self._link.domain(sign(message, self._analyst, self._key))
                if is_envelope(answer):
                    reasons.append(f"{silo}: {unverified(answer, Failed).reason[:200]}")
                    continue
                found = with_text(domain, answer.removeprefix(DOMAIN_MAGIC))
            except (CryptoError, FederationError) as err:
                reasons.append(f"{silo}: {err.message}")
                continue
            with suppress(OSError):  # it can be asked again
                self._path.mkdir(mode=0o700, exist_ok=True)
                self._make_room(len(answer))
                replace_file(self._file(domain), answer.removeprefix(DOMAIN_MAGIC), 0o600)
            return found
        said = f" ({'; '.join(reasons[:3])})" if reasons else ": no silo's policy names it"
        hint = "ask again when a silo that has it is back; `consilo silos` lists them"
        raise AnalystError(f"the {domain.size:,} values of the domain {domain.name} are not here{said}", hint)
