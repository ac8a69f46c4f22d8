"""Whether a report is written in another language than English, by its letters and its commonest words.

The rules read English only: in a German report they find next to nothing, which would look like a normal study. Only a
clear answer is given, so that terse English notes are never refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

# The commonest words of each language in reports, without those that English reports have too.
_WORDS: Mapping[str, frozenset[str]] = MappingProxyType({code: frozenset(words.split()) for code, words in {
    "de": ("der und ist kein keine keinen keiner nicht mit auf links rechts linken rechten beidseits "
           "beidseitig ohne sowie eine einer einem bei nach zum zur den dem vom als auch wie sich lunge lungen "
           "herz herzgröße befund beurteilung erguss pleuraerguss verschattung unauffällig unauffaellig "
           "zeichen hinweis nachweis fraktur stauung verbreitert mittellappen unterlappen oberlappen "
           "kardiomegalie infiltrat"),
    "es": ("el los las del con sin una por para que en sus como hay derrame pulmón pulmon pulmones izquierdo "
           "izquierda derecho derecha corazón corazon observa observan hallazgos ambos aumento signos "
           "neumotórax neumotorax neumonía cardiomegalia silueta tórax nódulo impresión evidencia"),
    "fr": ("le les du pas et dans sans avec au aux sur épanchement gauche droite droit poumon poumons coeur "
           "cœur pleurale d'épanchement opacité opacités cardiomégalie cardiaque il n'y signe pulmonaire ou "
           "taille foyer de pneumopathie"),
    "it": ("il lo gli della delle dei del non si con senza una nel nella nessun versamento pleurico polmone "
           "sinistro destro destra sinistra cuore evidenza cardiaca ombra nei limiti segni"),
    "pt": ("os da das dos não nao sem com uma em ao derrame pulmão esquerdo direito coração sinais observa-se "
           "área cardíaca normais tórax nódulo"),
    "nl": ("het een en niet geen van met zonder links rechts de bij aan zijn wordt hart long longen "
           "pleuravocht beiderzijds normaal afwijkingen"),
    "tr": ("ve bir ile sağ akciğer akciğerlerde iki izlenmedi izlendi kalp boyutları olarak yok mevcut plevral "
           "efüzyon saptanmadı"),
    "pl": "nie na bez oraz prawym lewym płuca serce płucach opłucnej jest po zmian",
}.items()})
_ENGLISH = frozenset((
    "the", "of", "is", "are", "and", "or", "with", "without", "to", "for", "there", "not", "at", "was", "were", "has",
    "been", "be", "this", "which", "heart", "lungs", "lung", "left", "right", "both", "small", "mild", "large",
    "effusion", "seen", "unchanged", "clear", "size", "upper", "lower", "from", "evidence", "noted"))
_SCRIPTS = MappingProxyType({
    "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh", "CYRILLIC": "ru", "ARABIC": "ar", "GREEK": "el",
    "HEBREW": "he", "THAI": "th", "DEVANAGARI": "hi"})
LANGUAGE_NAMES = MappingProxyType({
    "de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "pt": "Portuguese", "nl": "Dutch",
    "tr": "Turkish", "pl": "Polish", "ja": "Japanese", "ko": "Korean", "zh": "Chinese", "ru": "Russian", "ar": "Arabic",
    "el": "Greek", "he": "Hebrew", "th": "Thai", "hi": "Hindi"})
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SHORT = 12  # Words; in a text this short one word of another language tells, if none is English.


def foreign(text: str) -> str:
    """The language (ISO 639-1, of `LANGUAGE_NAMES`) of a report that is clearly not in English, or ""."""
    if not text.isascii():
        letters = [c for c in text if c.isalpha()]
        scripts = Counter(_SCRIPTS.get(unicodedata.name(c, "").split(" ")[0], "") for c in letters if not c.isascii())
        del scripts[""]
        # A few Greek letters are units and angles.
        if scripts and sum(scripts.values()) > 0.2 * len(letters):
            return "ja" if scripts["ja"] else scripts.most_common(1)[0][0]
    words = [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]
    english = sum(word in _ENGLISH for word in words)
    if english > 0.2 * len(words):
        return ""
    counts = Counter({code: sum(word in known for word in words) for code, known in _WORDS.items()})
    code, found = counts.most_common(1)[0]
    longest = max((len(word) for word in words if word in _WORDS[code]), default=0)
    if found >= max(2, 0.12 * len(words)) and found > 2 * english and longest > 2:
        return code
    # A single word tells when it is a long one.
    return code if longest > 3 and len(words) <= _SHORT and not english else ""
