"""Writes the report of a phantom `Scene` with the wordings of `xray.phrases`.

A report states most findings that are there, hedges the subtle ones, denies a random part of those that are absent, and
is mostly about other things: technique, devices, comparison, recommendations, communication.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from data_prep.synthetic.random_stream import RandomStream
from data_prep.synthetic.xray import phrases as bank
from data_prep.synthetic.xray.phrases import Bank
from data_prep.synthetic.xray.world import CHRONIC, FINDINGS, Lesion, Scene

# Marks around noun phrases while a sentence is built, so that they are found again after capitals are set.
_OPEN, _CLOSE = "\x01", "\x02"
_FIRST_LETTER = re.compile(r"[a-zA-Z0-9]")

# Absent findings that a report does not deny while one of these is there, because the words would contradict it.
_NOT_DENIED_WITH = {"Nodule": {"Mass", "Granuloma"}, "Mass": {"Nodule", "Granuloma"}, "Granuloma": {"Nodule", "Mass"},
                    "Edema": set(), "Consolidation": {"Mass"}}
_LUNG_FINDINGS = {"Nodule", "Mass", "Consolidation", "Atelectasis", "Edema", "Granuloma", "Emphysema", "Pneumothorax",
                  "Pleural Effusion"}
# What radiologists usually deny comes up more often.
_DENIED = {"Pneumothorax": 3.0, "Pleural Effusion": 3.0, "Consolidation": 2.5, "Cardiomegaly": 2.0, "Edema": 1.5,
           "Fracture": 1.3, "Nodule": 1.0, "Mass": 1.0, "Atelectasis": 0.9, "Emphysema": 0.7, "Hernia": 0.6,
           "Granuloma": 0.6}


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report and what is known about it.

    Attributes:
      text: sections with their headers, in the usual order.
      phrases: for every lesion of the scene, the words that state it (verbatim in the text when it is stated).
      stated: finding -> "present", "uncertain" or "absent" as FINDINGS and IMPRESSION state it; silent ones left out.
      templates: every wording used, as it stands in the bank.
      normal: whether the report states that the study is normal.
    """

    text: str
    phrases: tuple[str, ...]
    stated: Mapping[str, str]
    templates: frozenset[str]
    normal: bool


def write_report(scene: Scene, rng: RandomStream, *, test: bool) -> Report:
    """The report of a scene; only with `test` does it use the wordings kept for the test world."""
    return _Writer(scene, rng, test).write()


class _Writer:
    def __init__(self, scene: Scene, rng: RandomStream, test: bool) -> None:
        self.scene, self.rng, self.test = scene, rng, test
        self.used: set[str] = set()
        self.phrases: dict[str, str] = {}
        self.stated: dict[str, str] = {}
        self.rib: tuple[str, ...] = ()
        self.quality = ""

    # -- building blocks

    def pick(self, choices: Bank) -> str:
        out = self.rng.pick(choices.of(self.test))
        self.used.add(out)
        return out

    def fill(self, choices: Bank, **slots: str) -> str:
        """A wording with its slots filled: the given ones and the plain values."""
        template = self.pick(choices)
        if "{" not in template:
            return template
        rng = self.rng
        for name in ("number", "date", "time", "four", "kv", "feet", "age", "department", "view"):
            if "{" + name + "}" in template and name not in slots:
                slots[name] = self._value(name)
        if "Images {number} of {number}" in template:
            count = str(rng.integer(2, 9))
            return template.replace("{number}", count)
        return template.format_map(slots)

    def _value(self, name: str) -> str:
        rng = self.rng
        if name == "number":
            return str(rng.integer(2, 9))
        if name == "date":
            return f"{rng.integer(1, 12):02d}/{rng.integer(1, 28):02d}/{rng.integer(2009, 2023)}"
        if name == "time":
            hour, minute = rng.integer(0, 23), rng.integer(0, 59)
            return (f"{hour:02d}:{minute:02d}", f"{hour % 12 or 12}:{minute:02d} {'PM' if hour > 11 else 'AM'}")[
                rng.integer(0, 1)]
        if name == "four":
            return f"{rng.integer(0, 9999):04d}"
        if name == "kv":
            return str(rng.integer(70, 125))
        if name == "feet":
            return str(rng.integer(4, 6))
        if name == "age":
            return str(int(self.scene.anatomy.age))
        if name == "department":
            return rng.pick(bank.DEPARTMENTS)
        return self.scene.pose.view

    def head(self, finding: str) -> tuple[str, str]:
        """(kind, noun) with kind "a" (can be counted), "+" (plural) or "" (mass noun)."""
        words = self.pick(bank.HEADS[finding])
        first, _, rest = words.partition(" ")
        if first in ("a", "an"):
            return "a", rest
        return ("+", rest) if first == "+" else ("", words)

    def slots(self, lesion: Lesion) -> dict[str, str]:
        """Side, zone, severity and size words of a lesion."""
        rng = self.rng
        side = lesion.side or "midline"
        words = bank.SIZE_WORDS if lesion.finding in bank.SIZED else bank.DEGREE_WORDS
        if lesion.finding == "Fracture" and not self.rib:  # The same rib whenever the report comes back to it.
            self.rib = rng.pick(bank.RIBS.get(lesion.zone, bank.RIBS["mid"]))
        slots = {"side": side, "rib": rng.pick(self.rib) if self.rib else "",
                 "zone": lesion.zone if lesion.zone in ("upper", "mid", "lower") else "lower",
                 "Sev": rng.pick(words[lesion.severity]) + " " if rng.chance(0.7) else "",
                 "sevly": rng.pick(bank.ADVERBS[lesion.severity]) + " " if rng.chance(0.7) else ""}
        largest = max(spot.size for spot in lesion.spots)
        slots["cm"] = f"{largest * 33 - 0.6 + 0.2 * rng.random():.1f}"  # The thorax is about 33 cm wide.
        slots["big"] = f"{largest * 55 + 0.3 * rng.random():.1f}"
        return slots

    def noun_phrase(self, lesion: Lesion) -> dict[str, str]:
        """Slots `a`, `n`, `is` and `has` for a lesion, with side, zone and severity where the language puts them."""
        rng, finding = self.rng, lesion.finding
        slots = self.slots(lesion)
        kind, noun = self.head(finding)
        severity = "" if finding in ("Fracture", "Granuloma") else slots["Sev"]
        if noun.split(" ")[0] in ("enlarged", "increased", "widened"):
            severity = slots["sevly"]
        elif kind != "a" and finding in bank.SIZED:  # "Extensive pleural fluid", not "large pleural fluid".
            severity = rng.pick(bank.DEGREE_WORDS[lesion.severity]) + " " if severity else ""
        before = after = ""
        if finding == "Fracture":
            if noun != "rib fracture" or rng.chance(0.4):
                noun = "fracture" if noun == "broken rib" else noun.replace("rib ", "")
                after = " " + self.pick(bank.PLACES["rib"]).format_map(slots)
            else:
                before = self.pick(bank.BEFORE["rib"]).format_map(slots) + " "
        elif finding == "Hernia":
            after = " behind the heart" if rng.chance(0.15) and "retrocardiac" not in noun else ""
        elif finding == "Edema":
            before = "bilateral " if rng.chance(0.25) else ""
        elif lesion.side:
            sided = finding in ("Pleural Effusion", "Pneumothorax")
            zone = "sided" if sided and (lesion.zone != "apex" or rng.chance(0.4)) else lesion.zone or "sided"
            if finding == "Emphysema":
                pass
            elif rng.chance(0.55 if sided else 0.4) and " in the pleural space" not in noun:
                before = self.pick(bank.BEFORE[zone]).format_map(slots) + " "
            else:
                after = " " + self.pick(bank.PLACES[zone]).format_map(slots)
        if lesion.side == "bilateral" and kind == "a" and before:
            kind, noun = "+", _plural(noun)
        elif lesion.side == "bilateral" and kind == "a":
            after = _both(after)
        words = f"{severity}{before}{noun}{_both(after) if lesion.side == 'bilateral' else after}"
        marked = f"{_OPEN}{words}{_CLOSE}"
        article = ("an " if words[0] in "aeiou" else "a ") if kind == "a" else ""
        plural = kind == "+"
        return {"a": article + marked, "n": marked, "is": "are" if plural else "is", "has": "have" if plural else "has"}

    def finish(self, sentence: str, *findings: str) -> str:
        """Capital first letter; remembers the marked noun phrases, or the whole sentence, as the findings' words."""
        at = _FIRST_LETTER.search(sentence).start()
        sentence = sentence[:at] + sentence[at].upper() + sentence[at + 1:]
        phrases = re.findall(f"{_OPEN}(.*?){_CLOSE}", sentence) or [sentence.rstrip(".")]
        for finding, phrase in zip(findings, phrases):
            self.phrases.setdefault(finding, phrase)
        return sentence.replace(_OPEN, "").replace(_CLOSE, "")

    # -- statements

    def positive(self, lesion: Lesion) -> str:
        """A sentence that states the finding as present."""
        rng, finding = self.rng, lesion.finding
        self.stated[finding] = "present"
        known = lesion.chronic or (finding in CHRONIC and rng.chance(0.15))
        if known and rng.chance(0.6):
            return self.finish(self.fill(bank.UNCHANGED, **self.noun_phrase(lesion)), finding)
        if self.scene.prior and not lesion.chronic and rng.chance(0.4):
            return self.finish(self.fill(bank.NEW, **self.noun_phrase(lesion)), finding)
        if rng.chance(0.2):
            slots = self.slots(lesion)
            zone = lesion.zone or "sided"
            place = self.pick(bank.PLACES[zone]).format_map(slots) if lesion.side else ""
            slots["place"] = _both(place) if lesion.side == "bilateral" else place
            sentence = self.fill(bank.STATEMENTS[finding], **slots)
            if lesion.side == "bilateral":
                sentence = _bilateral_sentence(sentence)
            return self.finish(sentence, finding)
        return self.finish(self.fill(bank.POSITIVE, **self.noun_phrase(lesion)), finding)

    def hedged(self, lesion: Lesion) -> str:
        """A sentence that leaves open whether the finding is there."""
        self.stated[lesion.finding] = "uncertain"
        slots = self.noun_phrase(lesion)
        return self.finish(_agree(self.fill(bank.HEDGED, **slots), slots), lesion.finding)

    def pair(self, first: Lesion, second: Lesion) -> str:
        """One sentence that states two findings."""
        self.stated[first.finding] = self.stated[second.finding] = "present"
        slots = self.noun_phrase(first)
        slots["n2"] = self.noun_phrase(second)["n"]
        return self.finish(_agree(self.fill(bank.PAIRED, **slots), slots), first.finding, second.finding)

    def positives(self) -> list[str]:
        """Statements about everything that is there; few findings are left out."""
        rng, out = self.rng, []
        sure = []
        for lesion in self.scene.lesions:
            if lesion.subtle and rng.chance(0.08):
                continue  # Overlooked, as subtle findings sometimes are.
            if rng.chance(0.6 if lesion.subtle else 0.05):
                out.append(self.hedged(lesion))
            else:
                sure.append(lesion)
        if len(sure) >= 2 and rng.chance(0.3):
            out.append(self.pair(sure[0], sure[1]))
            sure = sure[2:]
        return out + [self.positive(lesion) for lesion in sure]

    def negatives(self, count: int) -> list[str]:
        """Denials of about `count` absent findings, in lists, sentences, and sentences that something is normal."""
        rng, present = self.rng, self.scene.present
        free = [f for f in FINDINGS if f not in present and f not in self.stated
                and not (_NOT_DENIED_WITH.get(f, set()) & present)]
        chosen = []
        for _ in range(min(count, len(free))):
            chosen.append(free.pop(rng.weighted([_DENIED[f] for f in free])))
        out, listed = [], []
        for finding in chosen:
            self.stated[finding] = "absent"
            if finding in bank.NORMAL_PARTS and rng.chance(0.6 if finding in ("Cardiomegaly", "Emphysema") else 0.3):
                out.append(self.pick(bank.NORMAL_PARTS[finding]))
            elif rng.chance(0.6):
                listed.append(self.pick(bank.ABSENT_HEADS[finding]))
            else:
                out.append(self.finish(self.fill(bank.NEGATED, n=self.pick(bank.ABSENT_HEADS[finding]))))
        if len(listed) == 1:
            out.append(self.finish(self.fill(bank.NEGATED, n=listed[0])))
        elif listed:
            pair = f"{', '.join(listed[:-1])} nor {listed[-1]}"
            comma = "," if len(listed) > 2 and rng.chance(0.5) else ""
            out.append(self.finish(self.fill(
                bank.NEGATED_LISTS, list_or=f"{', '.join(listed[:-1])}{comma} or {listed[-1]}",
                list_nor=f"{', no '.join(listed[:-1])} and no {listed[-1]}", list_pair=pair)))
        return out

    def false_alarm(self) -> list[str]:
        """Now and then a hedged sentence about a finding that is not there."""
        rng = self.rng
        absent = [f for f in FINDINGS if f not in self.scene.present and f not in self.stated and f not in (
            "Emphysema", "Cardiomegaly", "Hernia")]
        if not absent or not rng.chance(0.07):
            return []
        finding = rng.pick(absent)
        zone = {"Pleural Effusion": "base", "Pneumothorax": "apex", "Edema": ""}.get(finding) or rng.pick(
            ("upper", "mid", "lower"))
        return [self.hedged(Lesion(finding, rng.pick(("left", "right")), zone, "mild", True, _NOWHERE))]

    def impression(self, normal: bool) -> list[str]:
        """The findings again in short, or that there are none."""
        rng = self.rng
        if normal:
            return [self.pick(bank.NORMAL_WHOLE)]
        out = []
        for lesion in self.scene.lesions:
            state = self.stated.get(lesion.finding)
            if state == "present" and rng.chance(0.75):
                out.append(self.positive(lesion) if rng.chance(0.3) else self.finish(
                    f"{self.noun_phrase(lesion)['n']}.", lesion.finding))
            elif state == "uncertain" and rng.chance(0.5):
                out.append(self.hedged(lesion))
        return out or [self.fill(bank.RECOMMENDATIONS)]

    # -- the whole

    def devices(self) -> list[str]:
        """Sentences about some of the devices in the picture."""
        out = []
        for item in self.scene.distractors:
            if item.kind in bank.DEVICES and self.rng.chance(0.75):
                side = {1: "left", -1: "right"}.get(item.side, "left")
                out.append(self.fill(bank.DEVICES[item.kind], side=side))
        return out

    def write(self) -> Report:
        """Puts the sections together and fills up with non-diagnostic sentences to the chosen length."""
        rng, scene = self.rng, self.scene
        normal = not scene.lesions and rng.chance(0.93)
        findings = self.positives()
        findings += self.false_alarm() if not normal else []
        claimed = scene.present | {f for f, state in self.stated.items() if state != "absent"}
        if not _LUNG_FINDINGS & claimed and rng.chance(0.7 if normal else 0.35):
            findings.append(self.pick(bank.LUNGS_CLEAR))
        findings += self.negatives(rng.integer(1, 4))
        findings = rng.shuffled(findings)
        for lesion in scene.lesions:  # Words for the boxes of what the report does not mention.
            if lesion.finding not in self.phrases:
                self.finish(self.noun_phrase(lesion)["n"], lesion.finding)
        impression = self.impression(normal)
        compared = scene.prior or rng.chance(0.4)
        head = [f"{rng.pick(('EXAM', 'EXAMINATION'))}: {self.fill(bank.EXAM).rstrip('.')}."]
        if rng.chance(0.6):
            asked = self.pick(bank.ABSENT_HEADS[rng.pick(FINDINGS)])
            head.append(f"INDICATION: {self.fill(bank.INDICATION, n=asked)}")
        head.append(f"COMPARISON: {self.fill(bank.COMPARISON if compared else bank.NO_COMPARISON)}")
        head.append(f"TECHNIQUE: {self.fill(bank.TECHNIQUE)}")
        extra, tail = self.devices(), []
        words = sum(len(x.split()) for x in (*head, *findings, *impression, *extra)) + 2
        target = rng.integer(64, 112)
        while words < target:
            kind = rng.weighted((0.35, 0.3, 0.15, 0.2))
            known = len(self.used)
            sentence = self.fill((bank.FILLERS, bank.PROJECTIONS, bank.RECOMMENDATIONS, bank.COMMUNICATION)[kind])
            if len(self.used) > known and sentence not in bank.CONTRARY.get(self.quality, ()):
                self.quality = sentence if sentence in bank.CONTRARY else self.quality
                (extra if kind < 2 else tail).append(sentence)
                words += len(sentence.split())
        body = extra + findings if rng.chance(0.5) else rng.shuffled(extra + findings)
        if len(impression) > 1 and rng.chance(0.6):
            impression = [f"{i}. {sentence}" for i, sentence in enumerate(impression, 1)]
        text = "\n".join([*head, "FINDINGS: " + " ".join(body or ["As below."]),
                          "IMPRESSION: " + " ".join(impression + tail)])
        phrases = tuple(self.phrases[lesion.finding] for lesion in scene.lesions)
        return Report(text, phrases, dict(self.stated), frozenset(self.used), normal)


class _NoSpot:
    """Stands for the site of an absent finding: only its size is used."""

    size = 0.05


_NOWHERE = (_NoSpot(),)


def _plural(noun: str) -> str:
    """The plural of a noun phrase whose main noun comes before any "with", "in" or "of"."""
    match = re.match(r"(.*?)( (?:with|in|of|from|component)\b.*)?$", noun)
    main, rest = match.group(1), match.group(2) or ""
    if main.endswith("y"):
        return main[:-1] + "ies" + rest
    return main + ("es" if main.endswith(("s", "x")) else "s") + rest


_BOTH = re.compile(r"the bilateral (.*?)(lobe|zone|field|lung base|lung|region|base|hemidiaphragm|segments)$")


def _both(place: str) -> str:
    """A site with "bilateral" in it, in words for both sides."""
    for old, new in (("on the bilateral side", "on both sides"), ("on the bilateral", "on both sides"),
                     ("the bilateral hemithorax", "both hemithoraces"),
                     ("the retrocardiac bilateral", "the retrocardiac"),
                     ("basal bilateral lung", "base of both lungs"),
                     ("the dependent bilateral lung", "the dependent lungs")):
        place = place.replace(old, new)
    return _BOTH.sub(lambda m: f"both {m.group(1)}{m.group(2).rstrip('s')}s", place)


def _bilateral_sentence(sentence: str) -> str:
    """A statement whose side slot was filled with "bilateral", put into the plural."""
    for old, new in (("the bilateral costophrenic angle", "both costophrenic angles"),
                     ("the bilateral pleural space", "both pleural spaces"),
                     ("the hemidiaphragm.", "the hemidiaphragms."),
                     ("The bilateral costophrenic sulcus is", "Both costophrenic sulci are"),
                     ("on the bilateral", "on both sides"),
                     ("The bilateral hemidiaphragm is", "Both hemidiaphragms are")):
        sentence = sentence.replace(old, new)
    match = re.match(r"The bilateral (upper|mid|lower) lung is (.*)", sentence)
    return f"Both {match.group(1)} lungs are {match.group(2)}" if match else sentence


def _agree(sentence: str, slots: Mapping[str, str]) -> str:
    """Makes the verb after a plural noun phrase plural."""
    return sentence.replace(f"{_CLOSE} is ", f"{_CLOSE} are ", 1) if slots["is"] == "are" else sentence
