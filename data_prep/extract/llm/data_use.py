"""Whether reports may be sent to an endpoint, and what to look at before they are.

PhysioNet and others forbid sharing credentialed data with third parties through APIs
(physionet.org/news/post/llm-responsible-use, 24 Sep 2025). So reports under credentialed terms leave this host and its
private network only if the user attests, in words that are stored with the data set, that this is permitted.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Iterable
from urllib.parse import urlsplit

from lgdea_jax.errors import UserError

# Addresses that do not leave the house: this host, RFC 1918, and unique local IPv6. Not link-local (clouds put
# services there), not the shared space of carriers.
_LOCAL = tuple(ipaddress.ip_network(text) for text in (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"))
MIN_ATTESTATION = 20  # Characters: enough to say who permits what.


# One plain form. What programs read differently (a user before "@", backslashes, blanks, percent signs, letters beyond
# ASCII in the host) is refused, so that the host that was checked is the host that any of them finds.
_URL = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
                  r"(?:/[\w.~/:@!$&'()*+,;=%-]*)?", re.IGNORECASE | re.ASCII)


def check_url(url: str) -> None:
    """Refuses a base URL that is none, or that carries a user name, a password or a query (it would be recorded).

    Raises:
      UserError: so.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        raise UserError("llm.base_url is not a URL") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError("llm.base_url must not hold a user name, a password, a query or a fragment: keys come from the "
                        "environment")
    if not _URL.fullmatch(url):
        raise UserError("llm.base_url is like http://localhost:8000/v1, its host in plain letters, digits, dots and "
                        "hyphens")


@dataclasses.dataclass(frozen=True)
class Route:
    """Where the host of a URL was found.

    Attributes:
      addresses: of the host, in the order of the look-up; empty for the vendor's own and for unknown names. Clients
        connect to a local endpoint by these only: a name may have another address the next time.
      local: all of them are on this host or in a private network; this_host: all of them are on this host.
    """

    addresses: tuple[str, ...] = ()
    local: bool = False
    this_host: bool = False


def find_route(url: str) -> Route:
    """Looks up the host of a URL; "" is the vendor's own endpoint. A name that cannot be resolved is not local."""
    if not url:
        return Route()
    host = urlsplit(url).hostname or ""
    try:
        found = [str(ipaddress.ip_address(host))]
    except ValueError:
        try:
            found = [item[4][0] for item in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError):
            return Route()
    plain = [_plain(address) for address in found]
    return Route(tuple(dict.fromkeys(found)), all(map(_is_private, plain)), all(item.is_loopback for item in plain))


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    value = ipaddress.ip_address(address.split("%")[0])
    return getattr(value, "ipv4_mapped", None) or value


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in _LOCAL if network.version == address.version)


# From the least to the most restrictive.
_STRICTNESS = ("unstated", "open", "own", "credentialed")


def strictest(terms: Iterable[str]) -> str:
    """The terms that one report is under, of all that are stated about it: by its source, its rows and the user.

    Args:
      terms: of `records.TERMS`, in any order; "unstated" and "" state nothing.
    """
    return max((term or "unstated" for term in terms), key=_STRICTNESS.index, default="unstated")


def check_terms(terms: Iterable[str], *, local: bool, attestation: str, where: str) -> None:
    """Refuses to send reports to a remote endpoint unless their terms allow it.

    Args:
      terms: of `records.TERMS`, of the studies whose reports would be sent.
      local: whether the endpoint is (`is_local`).
      attestation: the user's words, "" without.
      where: how the user states terms, for the message.

    Raises:
      UserError: so.
    """
    attestation = attestation.strip()
    if attestation and len(attestation) < MIN_ATTESTATION:
        raise UserError(f"--attest_data_use must say in at least {MIN_ATTESTATION} characters who permits what: it is "
                        "stored with the data set")
    if local:
        return
    terms = set(terms)
    # First: a user with such reports is not asked to state the terms of others.
    if "credentialed" in terms and not attestation:
        raise UserError("these reports are under credentialed terms, which forbid sending them to third parties: use a "
                        "model on this host or in your private network (llm.base_url=http://...), or state with "
                        '--attest_data_use="..." who permits this use; it is stored with the data set')
    if "unstated" in terms:
        raise UserError(f"the terms of these reports are not stated: before they are sent to a remote endpoint, state "
                        f"{where}=open, credentialed or own (or use a local endpoint with llm.base_url)")


# --- De-identification ------------------------------------------------------------------------------------------------

_KINDS = ("dates", "names", "ids")
# 400,000 reports are to be screened in seconds. A search is quick where it begins with a literal or one set of
# characters, which C looks for, and ten times slower where it begins with \b, an alternation or (?i). So each pattern
# begins with a character (what stands before it is looked at afterwards), or runs only where a word of its own occurs.
_NUMERIC_DATE = re.compile(r"\d(?<!\w\d)(?:\d?[/.-]\d{1,2}[/.-](?:19|20)?\d{2}|\d{3}(?<=19\d\d|20\d\d)-\d{2}-\d{2})\b")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEAR = re.compile(r"[12][09]\d\d\b")
_MONTH = rf"(?:{'|'.join(_MONTHS)})[a-z]*\.?"
_WORDED_DATE = re.compile(rf"\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+(?:19|20)\d{{2}}\b"
                          rf"|\b\d{{1,2}}\s+{_MONTH}\s+(?:19|20)\d{{2}}\b", re.IGNORECASE)
_TITLES, _DEGREES = ("Dr", "Mr", "Ms", "Prof"), ("MD", "M.D.", "DO", "RN")
_NAME_LABELS = ("patient", "name", "signed by", "dictated by")
_TITLED_NAME = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof)\.?\s+[A-Z][a-z]+\b")
_LABELLED_NAME = re.compile(r"\b(?i:patient(?: name)?|name|signed by|dictated by)\s*:\s*[A-Z][a-z]+")
_NAME_WITH_DEGREE = re.compile(r"[A-Z](?<!\w.)[a-z]+ [A-Z][a-z]+,? (?:MD|M\.D\.|DO|RN)\b")
_ID_LABELS = {label: re.compile(rf"{label}(?<!\w{label})\b\W{{0,3}}#?\s*\w*\d")
              for label in ("mrn", "accession", "acc", "ssn", "dob", "patient id")}
_NUMERIC_ID = re.compile(r"\d(?<!\w\d)(?:\d\d-\d{2,3}-\d{4}|\d{6,})\b")
_PHONE = re.compile(r"\(\d{3}\)\s*\d{3}-\d{4}")
_ADDRESS = re.compile(r"[\w+-]@[\w-]+\.\w+\b")


def _any(words: Iterable[str], text: str) -> bool:
    # A generator inside any() would cost more than the searches.
    for word in words:  # noqa: SIM110
        if word in text:
            return True
    return False


def _has_date(report: str, lowered: str) -> bool:
    return bool(_NUMERIC_DATE.search(report)
                or (_YEAR.search(report) and _any(_MONTHS, lowered) and _WORDED_DATE.search(report)))


def _has_name(report: str, lowered: str) -> bool:
    return bool((_any(_TITLES, report) and _TITLED_NAME.search(report))
                or (_any(_DEGREES, report) and _NAME_WITH_DEGREE.search(report))
                or (_any(_NAME_LABELS, lowered) and _LABELLED_NAME.search(report)))


def _has_id(report: str, lowered: str) -> bool:
    for label, pattern in _ID_LABELS.items():
        if label in lowered and pattern.search(lowered):
            return True
    return bool(_NUMERIC_ID.search(report) or ("(" in report and _PHONE.search(report))
                or ("@" in report and _ADDRESS.search(report)))


_SCREENS = {"dates": _has_date, "names": _has_name, "ids": _has_id}


def likely_identifiers(report: str) -> tuple[str, ...]:
    """Kinds of likely identifiers in a report: among "dates", "names" and "ids". A screen, not a guarantee."""
    lowered = report.lower()
    return tuple(kind for kind in _KINDS if _SCREENS[kind](report, lowered))


@dataclasses.dataclass
class Screening:
    """Counts reports with likely identifiers, and remembers where the first of each kind stand; never their words."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    first: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    reports: int = 0

    def add(self, report: str, number: int) -> None:
        """Screens one report, the `number`-th (from 0)."""
        self.reports += 1
        for kind in likely_identifiers(report):
            self.counts[kind] += 1
            self.first.setdefault(kind, [])
            if len(self.first[kind]) < 3:
                self.first[kind].append(number)

    def warning(self) -> str:
        """One line, or "" when nothing was found."""
        if not self.counts:
            return ""
        found = "; ".join(f"likely {kind} in {self.counts[kind]} (the first: report "
                          f"{', '.join(map(str, self.first[kind]))})" for kind in _KINDS if self.counts[kind])
        return (f"warning: of {self.reports} reports, {found}, counting from 0. Check that they are de-identified "
                "before they are sent")
