"""Words for the demo's histories: names, places, numbers and codes, drawn from a key; the same key, the same text."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# `{city}` is drawn once and then stays, so that a history speaks of one city; `{~city}` is drawn anew each time.
_SLOT = re.compile(r"\{(~?)([a-z]+)\}")

_WORDS: dict[str, tuple[str, ...]] = {
    "person": (
        *("Amara Okafor", "Anneliese Krüger", "Aoife Byrne", "Arjun Mehta", "Beatriz Souza", "Bogdan Ionescu"),
        *("Camille Laurent", "Chen Yu-ting", "Dilnoza Karimova", "Ewa Zielińska", "Fatima Zahra", "Giulia Ferri"),
        *("Hana Sato", "Ibrahim Diallo", "Ingrid Solberg", "Jamal Carter", "José Núñez", "Kwame Mensah"),
        *("Leila Haddad", "Linh Trần", "Maja Novak", "Mateo Vargas", "Nadia Petrova", "Oluwaseun Ade"),
        *("Priya Raman", "Rafael Lima", "Sinéad Walsh", "Søren Dahl", "Tomáš Dvořák", "Yusuf Demir"),
    ),
    "first": ("Alex", "Bea", "Chris", "Dana", "Eli", "Fran", "Gus", "Jo", "Kim", "Lou", "Max", "Noor", "Robin", "Sam"),
    "city": (
        *("Accra", "Bergen", "Bogotá", "Brno", "Cork", "Da Nang", "Gdańsk", "Ghent", "Hamburg", "İzmir", "Kyoto"),
        *("Lisbon", "Lyon", "Malmö", "Medellín", "Montréal", "Nairobi", "Osaka", "Porto", "Recife", "Reykjavík"),
        *("São Paulo", "Seoul", "Tallinn", "Trieste", "Turku", "València", "Wellington", "Zürich"),
    ),
    "product": (
        *("a walnut desk lamp", "a 27-inch monitor", "a cast-iron pan", "hiking boots in size 42", "a rain jacket"),
        *("noise-cancelling headphones", "a bread oven", "a folding bike", "an espresso grinder", "a baby carrier"),
        *("a set of linen sheets", "a standing desk", "a trail backpack", "a mechanical keyboard", "a field recorder"),
    ),
    "company": (
        "Birch & Vale",
        "Cobalt Freight",
        "Halden Foods",
        "Lumen Atlas",
        "Nine Rivers",
        "Quarry",
        "Tern Travel",
    ),
    "carrier": ("NordPost", "SwiftVan", "Pelican Express", "RoundTrip Logistics"),
    "service": (
        *("billing-api", "checkout", "gateway", "image-resizer", "inventory", "ledger", "mailer", "notifications"),
        *("pricing", "recommendations", "search", "session-store", "shipping", "webhook-relay"),
    ),
    "region": ("eu-central", "eu-north", "us-east", "us-west", "ap-south", "sa-east"),
    "noun": (
        *("account", "basket", "booking", "customer", "device", "invoice", "job", "label", "order", "payment"),
        *("profile", "refund", "report", "shipment", "ticket", "upload", "voucher"),
    ),
    "verb": ("archive", "cancel", "export", "import", "merge", "publish", "reconcile", "retry", "split", "validate"),
    "topic": (
        *("heat pumps in old apartment blocks", "night trains across the Alps", "seaweed as packaging", "tidal power"),
        *("sodium-ion batteries", "urban beekeeping rules", "passive cooling in hot cities", "desalination costs"),
        *("four-day weeks in hospitals", "cargo bikes for last-mile delivery", "reading speed on e-paper"),
    ),
    "source": ("Open Transport Review", "Field Notes", "The Harbour Journal", "Energy Weekly", "City Data Lab"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": ("January", "March", "April", "May", "June", "August", "September", "October", "November"),
    "emoji": ("🙂", "👍", "🎉", "🙏", "🚀", "👀", "💡", "✅"),
    "colour": ("amber", "cobalt", "ivory", "moss", "ochre", "slate", "teal", "vermilion"),
    "dish": (
        "laksa",
        "pierogi",
        "feijoada",
        "injera with lentils",
        "okonomiyaki",
        "börek",
        "ceviche",
        "mushroom risotto",
    ),
    "error": (
        *("connection reset by peer", "context deadline exceeded", "too many open files", "disk quota exceeded"),
        *("certificate has expired", "deadlock detected", "upstream timed out", "out of memory: killed"),
    ),
    "airline": ("Aurora Air", "Blue Meridian", "Continental Star", "Skylark"),
    "model": ("atlas-2-large", "atlas-2-mini", "corvid-70b", "lark-4"),
}

_NUMBERS: dict[str, Callable[[random.Random], Any]] = {
    "small": lambda r: r.randint(2, 9),
    "count": lambda r: r.randint(12, 480),
    "many": lambda r: r.randint(1_100, 98_000),
    "ms": lambda r: r.randint(18, 2_400),
    "percent": lambda r: r.randint(3, 97),
    "ratio": lambda r: round(r.uniform(0.1, 9.9), 2),
    "amount": lambda r: f"{r.randint(4, 320)}.{r.randint(0, 99):02}",
    "date": lambda r: f"{r.randint(1, 28)} {r.choice(_WORDS['month'])}",
    "iso": lambda r: f"2026-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
    "clock": lambda r: f"{r.randint(0, 23):02}:{r.randint(0, 59):02}",
    "order": lambda r: f"A-{r.randint(100_000, 999_999)}",
    "ticket": lambda r: f"OPS-{r.randint(100, 9_999)}",
    "flight": lambda r: f"{r.choice('ABKLSX')}{r.choice('QRTVY')} {r.randint(100, 1_999)}",
    "commit": lambda r: f"{r.getrandbits(28):07x}",
    "host": lambda r: f"{r.choice(('web', 'db', 'cache', 'worker'))}-{r.randint(1, 24):02}",
    "version": lambda r: f"{r.randint(0, 6)}.{r.randint(0, 19)}.{r.randint(0, 9)}",
    "mail": lambda r: f"{r.choice(_WORDS['first']).lower()}.{r.getrandbits(12):03x}@example.com",
    "line": lambda r: r.randint(14, 260),
    "celsius": lambda r: r.randint(-8, 36),
}


class Writer:
    """Draws what one history needs."""

    def __init__(self, key: str) -> None:
        self._random = random.Random(key)  # noqa: S311 - made to be repeated, not to be secret
        self._facts: dict[str, Any] = {}

    def one(self, options: Sequence[T]) -> T:
        """Choose one."""
        return self._random.choice(options)

    def some(self, options: Sequence[T], least: int, most: int) -> list[T]:
        """Choose several different ones, in the order of the choice."""
        return self._random.sample(options, min(self._random.randint(least, most), len(options)))

    def number(self, least: int, most: int) -> int:
        """Choose a whole number, both ends included."""
        return self._random.randint(least, most)

    def happens(self, probability: float) -> bool:
        """Toss a coin that falls on its face this often."""
        return self._random.random() < probability

    def call_id(self) -> str:
        """Make the id of a tool call, as providers write them."""
        return f"call_{self._random.getrandbits(96):024x}"

    def forget(self) -> None:
        """Let the slots that stay be drawn anew: another matter begins."""
        self._facts.clear()

    def fill(self, template: str) -> str:
        """Write a template with its slots filled."""
        return _SLOT.sub(lambda found: str(self._draw(found[2], anew=bool(found[1]))), template)

    def fill_json(self, template: Any) -> Any:
        """Fill every text in a JSON value; one that is nothing but a slot becomes what is drawn, also a number."""
        match template:
            case str():
                alone = _SLOT.fullmatch(template)
                return self._draw(alone[2], anew=bool(alone[1])) if alone else self.fill(template)
            case dict():
                return {key: self.fill_json(value) for key, value in template.items()}
            case list() | tuple():
                return [self.fill_json(value) for value in template]
            case _:
                return template

    def _draw(self, name: str, *, anew: bool) -> Any:
        if not anew and name in self._facts:
            return self._facts[name]
        number = _NUMBERS.get(name)
        drawn = number(self._random) if number else self._random.choice(_WORDS[name])
        if not anew:
            self._facts[name] = drawn
        return drawn
