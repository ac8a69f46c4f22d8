"""The words of the rules extractor for where a finding is, on which side, how severe, and how it has changed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from data_prep.extract.rules.scanner import expand

_ANATOMY = {
    "upper lobe": ("upper lobe(s|)", "(r|l)ul", "bul"),
    "middle lobe": ("middle lobe(s|)", "rml"),
    "lower lobe": ("lower lobe(s|)", "(r|l)ll", "bll"),
    "lingula": ("lingula(r|)",),
    "base": ("(lung |)base(s|)", "(bi|)basilar", "basal", "bibasal", "lung bases"),
    "apex": ("ap(ex|ical|ices)", "biapical", "lung ap(ex|ices)"),
    "upper lung": ("upper (lung|lung zone|zone|hemithorax)",),
    "mid lung": ("mid(dle|) (lung|lung zone|zone)", "midlung"),
    "lower lung": ("lower (lung|lung zone|zone|hemithorax)",),
    "hilum": ("hil(um|a|ar)", "perihilar", "suprahilar", "infrahilar"),
    "retrocardiac": ("retrocardiac",),
    "costophrenic angle": ("costophrenic( angle(s|)| sulc(us|i)| recess(es|)|)", "cp angle(s|)"),
    "interstitial": ("interstiti(al|um)",),
    "lymph nodes": ("lymph (node|nodes|xxxx)",),
    "hilar lymph nodes": ("hilar lymph (node|nodes|xxxx)",),
    "mediastinal lymph nodes": ("mediastinal lymph (node|nodes|xxxx)",),
    "paratracheal lymph nodes": ("paratracheal lymph (node|nodes|xxxx)",),
    "rib": ("rib(s|)",),
    "clavicle": ("clavic(le|les|ular)",),
    "humerus": ("humer(us|al)",),
    "sternum": ("stern(um|al)",),
    "shoulder": ("shoulder(s|)",),
    "thoracic spine": (
        "(mid |lower |upper |)(thoracic|t) spine", "thoracic( vertebra| vertebrae| vertebral|)",
        "(mid|)thoracic( spine|)", "dorsal spine"),
    "thoracolumbar spine": ("thoracolumbar( spine|)",),
    "lumbar spine": ("lumbar( spine| vertebra|)",),
    "cervical spine": ("cervical( spine| vertebra|)",),
    "spine": ("spin(e|al)", "vertebra(l|e|)"),
    "aorta": ("(thoracic |descending |ascending |)aort(a|ic)( arch| knob|)",),
    "heart": ("heart", "cardiac"),
    "mediastinum": ("mediastin(um|al)",),
    "paratracheal": ("(right |left |)paratracheal",),
    "hemidiaphragm": ("(hemi|)diaphragm(s|atic|)",),
    "pleura": ("pleura(l|)",),
    "fissure": ("fissur(e|es|al)",),
    "lung": ("lung(s|)( field(s|)|)", "pulmonary"),
    "breast": ("breast(s|)",),
    "abdomen": ("abdom(en|inal)", "(right |left |)upper quadrant"),
    "neck": ("neck",),
    "chest wall": ("chest wall", "axilla(ry|)"),
    "right atrium": ("right atrium",),
    "superior vena cava": ("svc", "superior vena cava"),
}
_LATERALITY = {
    "left": ("left( sided|)", "lingula(r|)", "levo(scoliosis|curvature)", "l", "lt", "l sided", "lul", "lll"),
    "right": ("right( sided|)", "middle lobe", "dextro(scoliosis|curvature)", "r", "rt", "r sided", "rul", "rml",
              "rll"),
    "midline": ("midline",),
    "bilateral": (
        "bilateral(ly|)", "both", "bi(basilar|apical|basal)", "right and left", "left and right",
        "right (greater|larger|more|worse|bigger) than left", "left (greater|larger|more|worse|bigger) than right",
        "(b/l|bilat|bibas|either side|each (side|lung|base|apex|hemithorax)|both sides|bul|bll)",
        "(r|right|rt) ?(>|&gt;) ?(l|left|lt)",
        "(l|left|lt) ?(>|&gt;) ?(r|right|rt)"),
    "": ("l spine", "(r/o|r o)"),
}
_SEVERITY = {
    "trace": ("trace", "tiny", "minimal(ly|)", "minute"),
    "mild": ("mild(ly|)", "small", "slight(ly|)", "subtle", "mild to moderate"),
    "moderate": ("moderate(ly|)", "moderate sized"),
    "severe": (
        "severe(ly|)", "large", "marked(ly|)", "extensive", "massive", "moderate to (severe|large)", "gross(ly|)"),
}
_TEMPORALITY = {
    "new": ("new(ly|)", "interval development of", "developing", "interval appearance of"),
    "unchanged": (
        "unchanged", "stable", "persistent(ly|)", "persists", "again (seen|noted|demonstrated|identified)",
        "no (significant |interval |significant interval |)change(s|)( in| from|)", "chronic", "old", "healed",
        "remote", "similar", "redemonstrated", "without change"),
    "improved": (
        "improv(ed|ing|ement)( in|)", "interval (decrease|improvement)( in|)", "decreas(ed|ing) in size", "resolving",
        "smaller"),
    "worsened": (
        "worsen(ed|ing)( of|)", "increas(ing|ed in size)", "interval increase( in|)", "progress(ed|ing|ion)",
        "enlarging"),
}


def attributes() -> Mapping[str, Mapping[str, str]]:
    """Literal -> {"anatomy" | "laterality" | "severity" | "temporality": value}."""
    found: dict[str, dict[str, str]] = {}
    for kind, table in (("anatomy", _ANATOMY), ("laterality", _LATERALITY), ("severity", _SEVERITY),
                        ("temporality", _TEMPORALITY)):
        for value, patterns in table.items():
            for pattern in patterns:
                for text in expand(pattern):
                    found.setdefault(text, {})[kind] = value
    return MappingProxyType({text: MappingProxyType(value) for text, value in found.items()})
