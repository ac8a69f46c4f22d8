"""The cues of the rules extractor: the words that deny, hedge, date or question a finding, or end the reach of a cue.

NEGATE, UNCERTAIN, HYPOTHETICAL and HISTORY act on what follows them; NEGATED, DOUBTED and DISCLAIMED on what precedes,
and so does REMOVED on devices. OUTDATED denies what was, over the verb that says so ("was present, now absent").
HYPOTHETICAL and DISCLAIMED findings are asked for, advised on or out of the study's reach: nothing is stated of them.
PSEUDO takes words away from the cues ("no change in" denies nothing) and from the findings ("mass effect" is no mass);
BREAK ends the reach of a cue.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NEGATE, NEGATED, OUTDATED, REMOVED = "negate", "negated", "outdated", "removed"
UNCERTAIN, DOUBTED = "uncertain", "doubted"
PSEUDO, HISTORY, HYPOTHETICAL, DISCLAIMED, BREAK = "pseudo", "history", "hypothetical", "disclaimed", "break"

_SHOWN = ("(seen|identified|visuali(s|z)ed|present|evident|appreciated|demonstrated|detected|noted|visible|apparent|"
          "observed|found|"
          "shown|confirmed|discern(ed|ible)|encountered|recogni(s|z)ed|depicted|established|documented|demonstrable|"
          "proven|detectable|identifiable|recogni(s|z)able|made out|substantiated|verified|followed)")
_FULLY = "(fully |completely |entirely |totally |definitively |definitely |confidently |reliably |safely |quite |yet |)"
_LESS = "(partial|incomplete|near complete|nearly complete|near total|some|slight|mild|moderate|gradual|ongoing|slow)"
_CHANGE = ("(change|changes|increase|decrease|improvement|progression|worsening|difference|resolution|reduction|"
           "regression|clearing|clearance|deterioration|shrinkage|growth|alteration|variation|evolution|healing)")
_MODAL = "(may|might|could|can|would)"
_CAUSE = ("(due to|secondary to|related to|attributable to|caused by|explained by|accounted for by|attributed to|"
          "associated with|in keeping with|consistent with|compatible with|on the basis of|a result of|because of|"
          "owing to|"
          "stem from|stems from|result from|results from|resulting from|arising from|from)")
_STANDING = "(representing|represents|reflecting|reflects|indicating|indicates|signifying|corresponding to)"

CUES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    NEGATE: (
        "no", "not", "without", "(neither|nor)", "absen(ce|t)( of|)", "negative for", "free (of|from)", "clear of",
        "w/o", "never", "unable to", "fail(s|ed|) to", "hardly", "scarcely", "(argue|argues|evidence) against",
        "(did|does|do|is|was|were|are|has|have|had|could|can|would)n't", "cannot( see|)", "can not", "nil", "zero",
        "(no|without) (complication|complications|abnormality|abnormalities|findings|finding) (such as|like|"
        "including|in the "
        "form of)", "no (findings|changes|evidence|signs|features|abnormality|abnormalities|opacity|opacities) "
        "(consistent|"
        "compatible) with", "not (due|secondary|related) to", "lacking", "lacked",
        "no (radiographic |definite |convincing |significant |obvious |focal |acute |other |new |further |"
        ")evidence (of|for)",
        "no (signs|sign|suggestion|indication|findings|evidence|finding) (of|to suggest|suggesting|suggestive of|"
        "suspicious for|to indicate|concerning for|for)", "without (evidence|sign|signs) of",
        "no evidence (of|to suggest|for|suggesting)", "(fail|fails|failed) to (reveal|show|demonstrate)",
        "(den(ies|ied|ying|y))", "neg for", "disappearance of", "unlikely", "rather than",
        "(instead of|as opposed to)", "devoid of", "lacks any",
        "in the absence of",
        "(has|have|had) not (developed|had|shown)", "nor (is|are|was|were) there", "nor any", "no convincing",
        "never (had|developed)",
        "(rule|rules|ruled) (him |her |the patient |)out (for|against)", "ruled out",
        "(did|can|could) rule (him |her |the patient |)out", "resolution of", "resolved",
        "interval (resolution|removal|clearing) of", "removal of", "(clearing|clearance) of",
        "not (consistent|compatible) with",
        "inconsistent with", "lack of", "lacks", "exclude(s|d)", "no longer", "(nonvisualization|non visualization) of",
        "(is|was|are|were) negative for",
        "not (demonstrate|demonstrated|show|reveal|see|seen|identified|have|has|had|appear|appreciate|feel)",
        "unremarkable for", "no typical findings of", "no complaints of", "declin(es|ed)",
        "nothing (suggests|indicates|points to|in favo(u|)r of|to suggest|to indicate|suggestive of|suspicious for|"
        "concerning for)", "(mimic|mimics|mimicking|"
                                                                                        "mimicked|simulate|simulates|"
        "simulating|simulated|masquerading as)", "low (likelihood|probability|suspicion) (of|for)",
        "(absence|lack) of (any |)(evidence|signs|sign) (of|for)", "nowhere", "no longer (seen|present|visible)"),
    NEGATED: (
        "(is|are|was|were|has been|have been|) (ruled out|excluded|absent|resolved|negative)", "(ruled out|excluded)",
        f"(no longer|not|never|nowhere) (definitely |clearly |convincingly |currently |being |been |be |){_SHOWN}",
        f"(cannot|isn't|aren't|wasn't|weren't|hasn't|haven't|couldn't|can't|could not|can not) (been |be |){_SHOWN}",
        "(no longer|not) (there|a feature)", "(do|does|did) not exist", "non existent", "not existing",
        f"(was|were|is|are|has been|have been|) (specifically |actively |) (looked for|sought|searched for) "
        f"(and |but |) (not|is not|are not|was not|were not|none) {_SHOWN}",
        "(is|are|has|have|) (now |)(gone|vanished|disappeared)", "nonexistent",
        "(does|do|did) not (appear|seem) (to be |)(present|visible|seen|evident)",
        "(is|are|) (lacking|missing)",
        "(has|have) since (been |)(removed|resolved|cleared|disappeared|subsided|gone|withdrawn|drained|extracted)",
        "(show|shows|showed) (complete |interval complete |)(resolution|clearing)", "(been |)(re|)absorbed",
        "resorbed", "(completely|fully) (drained|evacuated)", "(drained|evacuated) (completely|fully)",
        "(not|less than) (likely|probable)", "not in evidence",
        "(felt|considered|thought|seems|appears|remains) (to be |)(very |)unlikely",
        "(not a|not an|no) (concern|issue)",
        "(is|was|are|were|be|represents|represent|represented|reflects|corresponds to|correspond to) (likely |"
        "probably |only |"
        "merely |)(a |an |the |) (nipple shadow|nipple|vessel|vessel on end|skin fold|artifact|artefact|artifacts|"
        "artefacts|overlap|"
        "overlapping structures|summation|composite shadow|button|electrode|costochondral junction)",
        "(is|are|was|were) (all |both |also |again |otherwise |) (negative|absent)", "free",
        "(is|are|was|were|would be|seems|appears|) (very |quite |) unlikely",
        "(is|are|was|were) not (palpable|palpated|heard|elicited|felt|noticed|reported|documented|recorded)",
        "(did|does|do|has|have) not (occur|occurred|recur|recurred|persist|return|returned|developed|appeared|"
        "arisen|formed|"
        "reaccumulated|re accumulated)",
        "(has|have) (also |now |since |) (resolved|cleared|subsided|disappeared)",
        "(has been|have been|been) (removed|ruled out)",
        "not (seen|identified|visualized|present|evident|found|appreciated)", "(is|are|was|were) denied",
        "(has|have) (completely|essentially|) resolved", "resolved", "none", "denied",
        "within (normal limits|limits of normal)"),
    OUTDATED: (
        "which (has|have) (since |now |meanwhile |)(been |)(completely |)(resolved|cleared|disappeared|subsided|"
        "healed|gone)",
        "(now|today|meanwhile|has|have) (fully |completely |)(re expanded|reexpanded|expanded|normal|clear|"
        "unremarkable)",
        "(now|today|meanwhile|since) (completely |)(absent|resolved|gone|cleared|negative|not seen|no longer seen|"
        "disappeared)"),
    REMOVED: ("(taken|pulled|come) out", "(is |are |now |) out", "pulled", "discontinued", "explanted", "extracted",
        "withdrawn",
        "removed", "d/c'd"),
    UNCERTAIN: (
        "(cannot|can not|can't) be (said|stated|concluded|assumed) (with certainty |)(that|whether)",
        "(minimal|little|trace|small|mild) if any",
        "possib(le|ly|ility of)", "probab(le|ly)", "likely",
        f"{_MODAL} (also |well |simply |merely |)(represent|be|reflect|indicate|relate to|suggest|mean|signify|"
        f"correspond to|have|contain|be a sign of)",
        f"{_MODAL} (also |well |)(be |)(partly |in part |){_CAUSE}",
        f"(possibly|probably|likely|presumably|perhaps|potentially|conceivably|maybe|most likely|thought to be|"
        f"felt to be|believed to be|suspected to be|probable|possible|favored to be|presumed) "
        f"(partly |in part |){_CAUSE}",
        f"(possibly|probably|likely|presumably|perhaps|potentially|conceivably|maybe|most likely) {_STANDING}",
        "(seem|seems|seemed) to (be|represent|have|show)", "(thought|believed|felt|considered|suspected) (to be|to "
        "represent|to reflect|likely to be)",
        "(raise|raises|raised|raising) (the |a |some |)(possibility|concern|suspicion|question|question of) (of|for|"
        "about)",
        "(raise|raises|raised|raising) (the |a |some |)(possibility|concern|suspicion|question)",
        "query", "(suggestion|hint|impression|appearance|suspicion) of", "potential(ly|)", "conceivabl(e|y)",
        "maybe", "poss", "prob",
        "(cannot|can not) be (said|assumed|concluded|stated) that (there is |there are |)no",
        "(cannot|can not|can't|could not|unable to|impossible to|not possible to|hard to|difficult to) (say|state|"
        "conclude|"
        "claim|assume|be certain|be sure) (with certainty |for certain |for sure |)(that |)(there is |there are |)no",
        "(no|without) certainty (that|about)( there is no| there are no| no| the| there is|)",
        "(wrong|incorrect|premature|too early|not right|not correct|not safe|unsafe) to (say|state|conclude|claim|"
        "assume) "
        "(that |)(there is |there are |)no",
        "(is|are|was|were|remains|would be) (difficult|hard|impossible|not possible) to (exclude|rule out|dismiss)",
        "(not |not entirely |not completely |isn't |un)(certain|sure|convinced|clear) (that|of|by|about|whether|"
        "if)( there is|"
        " there are| this is| the| an| a|)",
        "(no|without) (evidence|argument|arguments|sign|signs|proof|findings) against",
        "doubtful", "(is |remains |)(unclear|uncertain|unsure|unknown|questionable|not sure|not certain|not clear) "
                    "(if|whether|about)"
        "( there is| there are| this is| it is|)", "either", "(suspicion|concern|possibility|question) (is|was) "
                                                             "raised (of|for)",
        "(cannot|can not|difficult to|unable to|hard to|impossible to) (be |)(reliably |)"
        "(differentiate|differentiated|distinguish|distinguished|separate|separated)",
        "cannot (confirm|establish|assure|guarantee) (the |)absence (of|)", "ddx( includes|)", "concerned (about|for)",
        "equivocal (for|evidence of)", "(in |)(question|questioned|presumptive|tentative)", "c/f",
        "can be (seen|found) (in|with)", "suspicious (for|of)", "(i|we) doubt( there is| that there is|)",
        "a (question|possibility) of",
        "suggest(s|ive of|ing|ed|ion of|)", "suspicious for", "suspicion (of|for)", "suspected", "suspect",
        "concern(ing|) for", "question(able|ed| of|)", "worrisome for",
        f"(cannot|can not|can't|could not|couldn't|not|difficult to|hard to|impossible to|not possible to|not able to|"
        f"not feasible to|unable to|"
        f"fails to|fail to|without) {_FULLY}(exclude|rule out|excluding|ruling out|dismiss)",
        f"(cannot|can not|can't|could not) be {_FULLY}(excluded|ruled out|dismissed)", f"not {_FULLY}excluded",
        "(versus|vs|vs\\.)", "presumed", "presumably", "apparent", "equivocal", "borderline", "less likely",
        "(look|looks|looking) like", "wonder(s|ed|) (about|if|whether)",
        "perhaps", "most likely", "differential (diagnosis |considerations |)(includes|include|considerations)",
        "differential", "consider", "favor(ed|ing|s|)", "felt to represent", "appearance of",
        "xxxx represent(s|ing|)", "xxxx reflect(s|ing|)", "may", "might", "impression of", "subtle suggestion of"),
    DOUBTED: (
        "(remain|remains) (possible|likely|probable|suspected|questionable|not excluded)",
        "(does|do|did) not (exclude|rule out) (it|this|them|that)",
        "(is|are|) (also |still |) (suspected|questioned|possible|likely|probable|questionable|favored)",
        "(is|are|remains|) (also |) (in|within|on) the differential",
        f"(cannot|can not|can't|could not|couldn't|not) be {_FULLY}(excluded|ruled out|dismissed|discounted)",
        "(most|very|highly|quite) (likely|probable|possible)",
        "(remain|remains) (a |an |)(possibility|consideration|concern|option)",
        "(cannot|can not|can't|could not|couldn't) be (confirmed|verified|established|guaranteed|assured)",
        f"not (been |){_FULLY}(excluded|ruled out|dismissed)", "(isn't|aren't|hasn't|haven't) (been |)(excluded|ruled "
                                                               "out)",
        "(is|are|remain|remains|would be|be|) (difficult|hard|impossible) to (exclude|rule out|dismiss)",
        "(is|are|remain|remains|would be|should be|could be|may be|might be|also|) (a |also |) "
        "(suspected|presumed|questioned|in question|questionable|favored|favoured|thought likely|not unlikely)",
        "(cannot|can not) be (reliably |)(differentiated|distinguished|separated)", "(not certain|not definite|"
                                                                                    "inconclusive)",
        "(is|are|was|were|remain|remains) (also |) (conceivable|considered|equivocal|uncertain|doubtful|not certain|"
        "unclear)",
        "(should|could|may|might|must|can) (also |)be (considered|entertained|suspected|present)",
        "(is|are|was|were|) (not|difficult to) (excluded|exclude)",
        "(is|are|) (a |)(possibility|consideration|considerations|concern)", "(would be|is|are) less likely",
        "did(n't| not) rule out", "if (any|real|present|at all|true)",
        f"{_MODAL} (all |both |also |each |)(look like|have|give|cause|produce|explain|account for) (this|that|these|"
        f"the)"),
    PSEUDO: (
        "(no|without|any|little|lack of|absence of) (significant |definite |appreciable |suspicious |substantial |"
        "obvious |"
        "radiographic |relevant |noticeable |marked |measurable |meaningful |visible |real |major |essential |"
        "discernible |"
        f"clear |great |much |apparent |any |further |evidence of |)(interval |){_CHANGE}",
        "no (better|worse|smaller|larger|bigger|wider|different|milder) (than|from|)",
        "not (entirely |altogether |)(unexpected|unexpectedly|surprising|surprisingly|unusual|uncommon|insignificant|"
        "negligible|trivial|inconsiderable)",
        "(further|interval|continued) (enlargement|growth|expansion|evolution)",
        f"{_LESS} (interval |)(resolution|clearing|clearance|removal|disappearance) (of|in)",
        "(interval |)(partial|partially|partly|incompletely|nearly|almost|mostly|largely|not|not yet) "
        "(completely |fully |entirely |) (resolved|cleared|subsided|disappeared|absent|removed|gone|withdrawn)",
        "(has|have)(n't| not) (yet |fully |completely |entirely |)(resolved|cleared|subsided|disappeared|been removed)",
        "(has|have) (only |just |now |) (partially|partly|incompletely|nearly|almost|mostly|largely) "
        "(completely |) (resolved|cleared|subsided|disappeared)",
        "(not|no longer|never|hardly|isn't|aren't|wasn't|weren't|cannot be|not entirely|not completely) "
        "(without|free of|free from|devoid of|negative for|lacking|absent|clear of|denied|denying)",
        "(no|not) (an |the |any |) (absence|lack) of",
        "(cannot|can not|not) (yet |) (be |) (called|considered|regarded as|deemed) (resolved|cleared|absent|"
        "excluded)", "no (doubt|question|denying|mistaking)( about| that| of|)",
        "(no one|nobody|none) (doubts|questions|disputes|denies)",
        "(without|beyond) (any |a |) (doubt|question|dispute)", "not (just|merely|the "
                                                                                            "only)",
        "not (in doubt|in question)",
        "not (present|seen|visible|noted|identified|evident|there|apparent|demonstrated|described|reported) (on|in|at) "
        "(the |)(prior|previous|earlier|last|old|older|comparison|preceding|most recent|outside)",
        "pending (resolution|clearing) of", "out of", "(mm|cm) (wide|broad|thick|high|large|big)",
        "not (previously|formerly|earlier|yet) (seen|present|visible|noted|identified|described|known)",
        "(interval|new|recent|subsequent) appearance of",
        "(to|until|through) (resolution|clearing)",
        "follow up (of|for) (the|this|these|known)",
        "(to |)(confirm|ensure|document|demonstrate|verify|assure|establish) (complete |its |full |)(resolution|"
        "clearing)",
        "(no|without) (increase|decrease|change|reduction) in (the |)(size|extent|number|volume)( of|)",
        "not (enlarging|growing|increasing|decreasing|progressing|worsening|improving|increased|decreased|progressed|"
        "worsened|improved|new|acute|healed|grown|larger|smaller|worse|better|displaced)",
        "(is|are|has|have) not (changed|increased|decreased|progressed|worsened|improved|grown|healed|enlarged since)",
        "no longer (as |so |)(large|severe|extensive|enlarging|increasing|growing|new|acute)",
        "never (smoker|smoked)", "no known allergies", "not for",
        "(not|never) (seen|present|visible|noted|identified|evident|there) (previously|before|earlier|then)",
        "(without|no) (iv |intravenous |oral |)(contrast|complication|complications|sedation|incident|delay|"
        "assistance|effort|"
        "contraindication|contraindications|wonder|(acute |respiratory |apparent |)distress)",
        "no (less|fewer|more|later|earlier|sooner) than",
        "(in|since|of|from|until|on|last|by|early|late|mid) may", "may (19|20)(0|1|2)(0|1|2|3|4|5|6|7|8|9)",
        "free (flowing|floating|layering|lying|moving|standing|breathing|of charge)",
        "(hiv|gram|covid|culture|smear|pcr|test|sputum) negative", "negative pressure",
        "(excluded|absent) from (the |this |our |)(field|film|image|images|view|study|exam|examination|radiograph)",
        "(but |though |although |)not (diagnostic of|specific for|pathognomonic of|pathognomonic for|typical of|"
        "characteristic of)",
        # No finding, though the word is one.
        "(good|adequate|contrast|vascular|optimal|suboptimal|satisfactory|sufficient) opacification",
        "opacification of the (pulmonary artery|pulmonary arteries|aorta|vessels|veins|svc|heart|bowel)",
        "(normal|homogeneous|mixed) density", "pneumonia like",
        "(consolidation|consolidative) (chemotherapy|therapy|treatment|radiotherapy|cycle)",
        "infiltration (anesthesia|anaesthesia|block)", "emphysematous (cholecystitis|pyelonephritis|cystitis|"
                                                       "gastritis|osteomyelitis)",
        "(pneumonia|pneumothorax|effusion|nodule|lung nodule|pulmonary nodule) (vaccine|vaccination|severity index|"
        "kit|tray|protocol|clinic|ward)",
        "(corneal|lens|vitreous) (opacity|opacities)", "(pyogenic|dental|periapical) granuloma", "granuloma annulare",
        "(year old|young|old) lad",
        "(no |without |)mass effect", "mass (index|spectrometry|casualty)", "mass of the (patient|body|heart)",
        "(body|muscle|lean|fat|bone|myocardial|ventricular|lv|cardiac|red cell) mass",
        "(bone|breast|mineral|bone mineral|contrast|optical|fluid|soft tissue|metallic|metal|fat|water|air) "
        "(density|densities|attenuation)",
        "(joint|knee|hip|shoulder|elbow|ankle|subdural|glenohumeral|ear|middle ear|bursal|synovial) "
        "(effusion|effusions|fluid)",
        "(inguinal|umbilical|ventral|incisional|femoral|disc|disk|abdominal wall|parastomal|spigelian|brain|"
        "uncal|tonsillar) (hernia|hernias|herniation)",
        "(inguinal |umbilical |ventral |incisional |)hernia (repair|mesh|surgery)", "herniorrhaphy",
        "either (side|lung|hemithorax|base|apex|hemidiaphragm|costophrenic|of|way|case)", "(to|will|may|could) drain",
        "(thoracic|chest|pleural|abdominal|peritoneal|pelvic|glenoid|oral|nasal|marrow|medullary|dental|body) "
        "(cavity|cavities)",
        "(nasal|sinus|hepatic|liver|passive hepatic|nasal and sinus) congestion",
        "(fatty|fat) infiltration", "(st|st segment|respiratory|sternal|marrow) (depression|elevation)",
        "fracture (clinic|risk|healing)", "lead (apron|apparatus|poisoning|time)", "lead(s|ing) (to|into)",
        "tip of the (scapula|nose|spleen|liver|finger|iceberg|coracoid|acromion|tongue|xiphoid|nipple|apex)",
        "(scapular|scapula|liver|splenic|spleen|finger|costal|nasal|lung) tip(s|)",
        "(in |)line with", "(mid|azygo|aortic|skin|joint|growth|paraspinal|paravertebral|junction|fissure|"
        "mediastinal|junctional|hair|hairline) line", "port (site|of entry)",
        "(lad|circumflex|rca|proximal lad|mid lad|distal lad) (stent|artery|territory|lesion|calcification|disease|"
        "calcifications)",
        "image fusion", "pet ct fusion", "(fusion|fused) images", "consider(able|ably)", "drain the",
        "scar(s|) (of|on) the skin", "(skin|surgical|thoracotomy|sternotomy|c section|incisional|operative|burn) "
                                     "scar(s|)",
        "(patient|he|she|who) (has |had |)collapsed", "collapsed at (home|work)", "(ivc|svc|vein|airway|"
        "tracheal|expiratory|dynamic) collapse", "(cystic|retroperitoneal|marrow|liver|hepatic|myelo) fibrosis",
        "(leg|ankle|pedal|peripheral|cerebral|brain|marrow|bone marrow|scrotal|periorbital|lid|limb|foot|"
        "periportal|mesenteric|laryngeal|mucosal|subcutaneous|soft tissue|skin|body wall|extremity) (edema|oedema)",
        "(edema|oedema) of the (leg|legs|ankle|ankles|feet|foot|limb|limbs|skin|soft tissues|subcutaneous tissues)",
        "no (longer|further) (increase|change) in",
        "not (significantly |appreciably |) changed", "not only", "not necessarily",
        "not (certain|clear|sure) (if|whether)", "gram negative", "without difficulty",
        "not (fully|completely|well|entirely|optimally|adequately|clearly) "
        "(evaluated|assessed|included|imaged|visualized|visualised|seen|demonstrated|delineated|defined|shown|"
        "appreciated)",
        "no (prior |previous |)comparison(s|)", "no priors",
        "no (prior|previous) (study|studies|exam|exams|examination|examinations|film|films|radiograph|"
        "radiographs|images)", "not extend", "not cause", "free (wall|margin|text|flow)", "no response",
        "not significantly different", "question of .", "heart failure symptoms", "not drain", "nothing by mouth",
        "no xxxx change", "no xxxx interval change",
        "without (treatment|therapy|intervention|surgery|medication)", "not (know|aware)"),
    HISTORY: (
        "(history|h/o|hx|past history|past medical history|prior history|known history|personal history) of",
        "history", "status post", "s/p", "previous(ly|)( documented| described| noted|)", "prior episode of",
        "(had|have had|has had) (a |an |) (previous|prior|past|earlier|old)",
        "(study|exam|examination|radiograph|film|image|ct|scan|report)(s|)(,|) (in which|on which|where|that|which) "
        "(there (was|were)|showed|demonstrated|revealed)",
        "(prior|previous|earlier|last|outside|old) (chest |)(study|exam|examination|radiograph|film|ct|scan|"
        "report)(s|) "
        "(showed|demonstrated|revealed|described|reported|noted)",
        "(prior|previous|earlier|last|old|outside) (chest |)(study|exam|examination|radiograph|film|image|ct|scan|"
        "report)(s|) "
        "there (was|were)", "there (had been|used to be)",
        "(in|on) (19|20)(0|1|2|9)(0|1|2|3|4|5|6|7|8|9)( |, )there (was|were)",
        "(last|in) (week|month|year) there (was|were)",
        "(treated|treatment|therapy|antibiotics|admitted|hospitalized) for"),
    HYPOTHETICAL: (
        "family history (of|for)",
        "(evaluate|evaluation|assess|assessment|checked|screen|screening|check) for",
        "(evaluation|assessment|diagnosis|identification|characteri(s|z)ation) of (a |any |)(possible|potential|"
        "suspected|"
        "occult|underlying|subtle|additional|early)", "(exclusion|detection) of",
        "(cannot|can not|can't|may not|might not|do not|does not|don't|doesn't|not always) (reliably |always |"
        ")(detect|show|"
        "reveal|demonstrate|depict|visuali(s|z)e|pick up) (all|every|small|subtle|early|tiny|most|many)",
        "(to |)(rule|rules) (him |her |the patient |)out", "r/o",
        "if (there is |)(clinical |persistent |continued |further |high |)(concern|suspicion|suspected) (for|of|)",
        "to (exclude|evaluate|assess|document|confirm)",
        "(clinically|clinical) (concern|suspicion|correlation) (for|of)",
        "(should|could|would|ought to|must|to|will|may) be (ruled out|excluded) for", "differentiate",
        "if clinically indicated", "in (the |)(setting|case) of", "risk (of|for)", "question of history",
        "follow up (of|for|to)", "(signs|symptoms) of",
        f"{_MODAL} (help |help to |better |further |)(exclude|rule out|detect|confirm|clarify|evaluate)",
        f"{_MODAL} (easily |)(hide|mask|obscure|conceal|mimic|simulate|miss|overlook|be hiding|be obscuring|be masking|"
        "be concealing|underestimate)",
        "(limit|limits|limited|limiting|hamper|hampers|hinders|preclude|precludes|precluding|impair|impairs|degrades|"
        "suboptimal|inadequate|insufficient|nondiagnostic|unsuitable|not suitable|not adequate|not sufficient|low|"
        "limited in|restricts|reduces|reduced|decreased|poor) (the |for |for the |)"
        "(evaluation|assessment|detection|sensitivity|visuali(s|z)ation|exclusion|diagnosis|identification)",
        "(not |)(tailored|designed|intended|dedicated|protocolled|protocoled|optimi(s|z)ed) (to|for)( the|)"
        "( assessment| evaluation| detection| diagnosis|)( of|)",
        "(insensitive|not sensitive|sensitivity|not optimal|limited) (for|to)( the|)"
        "( detection| assessment| evaluation|)( of|)",
        "(cannot|can not|unable to|impossible to) (be used to |)(assess|evaluate|comment on|judge)( for| the|)",
        "(correlate|correlated|correlation|correlating) (clinically |)(for|with|to exclude)",
        f"(does not|doesn't|do not|don't|did not|didn't) {_FULLY}(exclude|rule out)",
        "(more|less|most|very|highly|particularly) sensitive (for|to|in)",
        "not (performed|done|obtained|meant|made|suited|suitable|adequate|ideal|ordered) (to|for)",
        "please (exclude|rule out|look for|check for)",
        "(please |)correlate (clinically |)(for|with)",
        "(recommend|recommended|recommends|advise|advised|suggest|consider) (ct|mri|ultrasound|follow up|repeat|"
        "further|additional|clinical)( imaging| evaluation| views| correlation|) (for|to)",
        "(look|looking|search|searching|watch|watching|monitor|monitoring|observe|observing|surveillance|test|testing|"
        "checking|examine) (for|out for)", "(attention|alert) to (possible |)(signs of |)", "should there be",
        "in case of", "(suspected|concern for|suspicion of|question of) clinically", "clinical(ly|) (suspected|"
                                                                                     "suspicion|"
        "question|concern)( of| for| is| about|)", "if (the |)(patient|there) (has|is|are|develops)",
        "if (clinical |)(symptoms|signs|findings|concern|suspicion)( of| for| persist| suggest|)",
        "(at|increased|high|low) risk (of|for)", "(prevent|avoid|prophylaxis|treat|treatment) (for|of|against|)",
        "to (rule out|look for|detect|assess for|evaluate for|identify|characteri(s|z)e|confirm or exclude|"
        "differentiate)",
        "(even|also) in the (presence|absence) of", "(presence|absence) or (absence|presence) of"),
    DISCLAIMED: (
        f"{_MODAL} (easily |well |still |)(be |go |have been |remain |)"
        "(missed|overlooked|obscured|hidden|masked|undetected|occult|concealed|unrecogni(s|z)ed|inapparent|"
        "invisible|underestimated|inconspicuous|radiographically occult|unnoticed)",
        f"{_MODAL} not (always |necessarily |)(be |)(visible|seen|apparent|detected|evident|shown|depicted|appear|"
        "visuali(s|z)ed|identified|recogni(s|z)ed)",
        f"{_MODAL} (escape|elude|evade) (detection|notice|attention|us)",
        "(is|are) (beyond|below|under) the (resolution|limits|limit|detection|threshold|scope)",
        "(needs|need|has|have|ought|remains) to be (excluded|ruled out)",
        f"(are|is) not (always|reliably|necessarily|invariably|consistently) {_SHOWN}",
        "(are|is) (often|frequently|commonly|easily|sometimes) (missed|overlooked|occult|obscured|not visible|not "
        "seen)",
        "(cannot|can not|could not|can't) be (adequately |reliably |properly |fully |accurately |)"
        "(assessed|evaluated|judged|commented on|determined|graded)",
        "(is|are|was|were) (not assessed|not evaluated|not evaluable|not assessable|beyond the scope)",
        "(is|are) (clinically |)(suspected clinically|of clinical concern)",
        "(is|are) (the |a |) clinical (concern|question|suspicion)"),
    BREAK: (
        "but", "however", "nevertheless", "yet", "(al|)though", "aside from", "except( for|)", "apart from",
        "other than", "secondary to", "due to", "because( of|)", "which", "whereas", "while", "otherwise",
        "and (there|the|a|an|stable|mild|mildly|small|minimal|unchanged|moderate|is|are|has|persistent|left|"
        "right|bilateral|some)",
        "and (was|were|had|does|did|will|would|then|now|positive|remains|remained|continues|continued|shows|"
        "showed|demonstrates|demonstrated|reveals|revealed|reports|reported|complains|complained|developed|"
        "became|began)", "until", "prior to",
        "with (the|a|an|some|mild|moderate|small|stable|persistent|minimal|unchanged|associated|left|right|"
        "bilateral)", "as (the |a |an |)(cause|source|reason|etiology|origin) (of|for)",
        "(cause|source|reason|etiology|origin)(s|) (of|for)", "there (is|are)", "given", "consistent with",
        "compatible with", "in keeping with", "representing", "represents", "related to", "with interval",
        "positive for", "and (he|she|it|they|we|i|this|these|her|his|their|patient)", "besides", "despite", "in spite "
                                                                                                            "of", "so",
        "save for", "with the exception of", "with exception of", "associated with", "in association with",
        "outside of",
        "(after|following) (the |a |recent |)", "instead", "nonetheless", "unlike",
        "in addition to", "to account for", "to explain", "explaining",
        "since", "to suggest that", "none elsewhere", "none (on|in|at) the (right|left|other|opposite|contralateral)"),
})
