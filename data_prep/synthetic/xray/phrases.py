"""The phrase bank of the phantom reports: how findings, their absence and everything around them are worded.

Every bank has shared wordings and wordings that only the test world uses (about 30% of the whole), so that a model
or an extractor meets new language there. The bank is written the way radiologists dictate, without looking at the
synonyms or rules of any extractor, whose score on these reports would otherwise mean nothing.

Slots: `{a}` noun phrase with its article, `{n}` without; `{is}` is or are, `{has}` has or have; `{side}` left, right or
bilateral; `{Sev}` an adjective and `{sevly}` an adverb of severity (each with a trailing space, or empty); `{rib}` an
ordinal; `{date}`, `{time}`, `{cm}`, `{number}` plain values. A noun phrase that starts with "a " or "an " can be
counted; one that starts with "+ " is plural.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bank:
    """Wordings of one kind: `shared` for every world, `test_only` for the test world in addition."""

    shared: tuple[str, ...]
    test_only: tuple[str, ...] = ()

    def of(self, test: bool) -> tuple[str, ...]:
        """The wordings that a world may use."""
        return self.shared + self.test_only if test else self.shared


HEADS = {
    "Nodule": Bank(
        ("a nodule", "a pulmonary nodule", "a lung nodule", "a nodular opacity", "a rounded nodule",
         "a solitary pulmonary nodule", "a noncalcified nodule"),
        ("a nodular density", "a circumscribed nodule", "a discrete nodular lesion")),
    "Mass": Bank(
        ("a mass", "a lung mass", "a pulmonary mass", "a mass lesion", "an irregular mass", "a lobulated mass",
         "a masslike opacity"),
        ("a masslike lesion", "a soft tissue mass", "a spiculated mass")),
    "Consolidation": Bank(
        ("consolidation", "airspace consolidation", "focal consolidation", "an area of consolidation",
         "airspace opacification with air bronchograms", "patchy consolidation", "consolidative opacity"),
        ("lobar consolidation", "confluent airspace consolidation", "parenchymal consolidation")),
    "Pleural Effusion": Bank(
        ("a pleural effusion", "pleural fluid", "an effusion", "a layering pleural effusion",
         "a pleural fluid collection",
         "fluid in the pleural space", "a free-flowing pleural effusion"),
        ("a basal pleural effusion", "dependent pleural fluid", "an accumulation of pleural fluid")),
    "Pneumothorax": Bank(
        ("a pneumothorax", "pleural air", "a pneumothorax with visible pleural line", "air in the pleural space",
         "a simple pneumothorax", "a partial pneumothorax", "a non-tension pneumothorax"),
        ("a closed pneumothorax", "intrapleural air", "a spontaneous pneumothorax")),
    "Cardiomegaly": Bank(
        ("cardiomegaly", "cardiac enlargement", "enlargement of the heart", "enlargement of the cardiac silhouette",
         "an enlarged heart", "an enlarged cardiac silhouette", "cardiac silhouette enlargement"),
        ("global enlargement of the heart", "an increased cardiothoracic ratio", "a widened cardiac silhouette")),
    "Atelectasis": Bank(
        ("atelectasis", "linear atelectasis", "subsegmental atelectasis", "platelike atelectasis",
         "discoid atelectasis", "bandlike atelectasis", "volume loss with atelectasis"),
        ("an atelectatic band", "atelectatic change", "dependent atelectasis")),
    "Edema": Bank(
        ("pulmonary edema", "interstitial edema", "pulmonary vascular congestion with edema", "perihilar edema",
         "interstitial pulmonary edema", "edema of the lungs", "cardiogenic pulmonary edema"),
        ("hydrostatic pulmonary edema", "alveolar and interstitial edema", "edematous change with Kerley lines")),
    "Fracture": Bank(
        ("a rib fracture", "a fracture", "a displaced rib fracture", "an acute rib fracture", "a fracture deformity",
         "a cortical rib fracture", "a mildly displaced fracture"),
        ("a broken rib", "a fracture line", "a fracture with callus")),
    "Emphysema": Bank(
        ("emphysema", "pulmonary emphysema", "emphysematous change", "centrilobular emphysema", "bullous emphysema",
         "hyperinflation with emphysema", "upper lobe predominant emphysema"),
        ("emphysematous lung disease", "diffuse emphysema", "hyperexpansion from emphysema")),
    "Hernia": Bank(
        ("a hiatal hernia", "a hiatus hernia", "a sliding hiatal hernia", "a retrocardiac hiatal hernia",
         "a hiatal hernia with an air-fluid level", "a gas-containing hiatal hernia", "a gastric hiatal hernia"),
        ("a herniated stomach", "a paraesophageal hernia", "a diaphragmatic hiatus hernia")),
    "Granuloma": Bank(
        ("a granuloma", "a calcified granuloma", "a calcified pulmonary granuloma", "a healed granuloma",
         "a densely calcified granuloma", "a punctate calcified granuloma", "a benign granuloma"),
        ("a granulomatous calcification", "an old granuloma", "a calcified granulomatous focus")),
}

# How absence is worded: plainer, and without sizes.
ABSENT_HEADS = {
    "Nodule": Bank(("pulmonary nodule", "suspicious nodule", "lung nodule", "nodule"), ("nodular lesion",
    "noncalcified nodule")),
    "Mass": Bank(("mass", "lung mass", "pulmonary mass", "mass lesion"), ("masslike lesion", "soft tissue mass")),
    "Consolidation": Bank(("focal consolidation", "consolidation", "airspace consolidation",
    "focal airspace consolidation"),
                          ("lobar consolidation", "parenchymal consolidation")),
    "Pleural Effusion": Bank(("pleural effusion", "effusion", "pleural fluid", "sizable pleural effusion"),
                             ("free pleural fluid", "collection of pleural fluid")),
    "Pneumothorax": Bank(("pneumothorax", "apical pneumothorax", "large pneumothorax", "pleural air"),
                         ("intrapleural air", "tension pneumothorax")),
    "Cardiomegaly": Bank(("cardiomegaly", "cardiac enlargement", "enlargement of the heart",
                          "enlargement of the cardiac silhouette"),
                         ("widening of the cardiac silhouette", "increase in heart size")),
    "Atelectasis": Bank(("atelectasis", "segmental atelectasis", "lobar atelectasis", "linear atelectasis"),
                        ("atelectatic change", "atelectatic bands")),
    "Edema": Bank(("pulmonary edema", "edema", "interstitial edema", "overt pulmonary edema"),
                  ("alveolar edema", "hydrostatic edema")),
    "Fracture": Bank(("rib fracture", "acute fracture", "displaced rib fracture", "acute osseous fracture"),
                     ("broken rib", "fracture of the ribs")),
    "Emphysema": Bank(("emphysema", "emphysematous change", "pulmonary emphysema", "emphysematous hyperinflation"),
                      ("emphysematous bullae", "destructive emphysema")),
    "Hernia": Bank(("hiatal hernia", "hiatus hernia", "large hiatal hernia", "diaphragmatic hernia"),
                   ("paraesophageal hernia", "gastric herniation")),
    "Granuloma": Bank(("calcified granuloma", "granuloma", "old granuloma", "calcified granulomas"),
                      ("granulomatous calcification", "granulomatous focus")),
}

# Where: after the noun ("... in the right upper lobe") and before it ("right upper lobe ...").
PLACES = {
    "upper": Bank(("in the {side} upper lobe", "in the {side} upper lung", "in the {side} upper lung zone",
                   "within the {side} upper lobe", "overlying the {side} upper lung"),
                  ("projecting over the {side} upper zone", "of the {side} upper lung field")),
    "mid": Bank(("in the {side} mid lung", "in the {side} midlung zone", "in the {side} perihilar region",
                 "within the {side} mid lung", "in the middle third of the {side} lung"),
                ("projecting over the {side} mid zone", "in the {side} middle lung field")),
    "lower": Bank(("in the {side} lower lobe", "in the {side} lower lung", "in the {side} lower lung zone",
                   "within the {side} lower lobe", "overlying the {side} lower lung"),
                  ("projecting over the {side} lower zone", "in the {side} infrahilar region")),
    "base": Bank(("at the {side} lung base", "at the {side} base", "in the {side} base",
                  "above the {side} hemidiaphragm", "in the basal {side} lung"),
                 ("at the {side} basal segments", "in the dependent {side} lung")),
    "retrocardiac": Bank(("in the {side} retrocardiac region", "in the retrocardiac {side} lower lobe",
                          "behind the heart", "in the retrocardiac space"),
                         ("obscured behind the heart on the {side}", "posterior to the heart")),
    "sided": Bank(("on the {side}", "in the {side} hemithorax", "within the {side} hemithorax"),
                  ("on the {side} side",)),
    "apex": Bank(("at the {side} apex", "at the {side} lung apex", "in the {side} apical region"),
                 ("over the {side} apex",)),
    "rib": Bank(("of the {side} {rib} rib", "of the {rib} {side} rib", "involving the {side} {rib} rib",
                 "of the lateral {side} {rib} rib", "of the posterolateral {side} {rib} rib"),
                ("through the {side} {rib} rib", "along the {side} {rib} rib")),
}
BEFORE = {
    "upper": Bank(("{side} upper lobe", "{side} upper lung"), ("{side} upper zone",)),
    "mid": Bank(("{side} mid lung", "{side} perihilar"), ("{side} midzone",)),
    "lower": Bank(("{side} lower lobe", "{side} lower lung"), ("{side} lower zone",)),
    "base": Bank(("{side} basilar", "{side} basal"), ("{side} lung base",)),
    "retrocardiac": Bank(("{side} retrocardiac", "retrocardiac"), ("{side} paracardiac",)),
    "sided": Bank(("{side}",), ("{side}-sided",)),
    "apex": Bank(("{side} apical", "{side} apicolateral"), ("{side} apical and lateral",)),
    "rib": Bank(("{side} {rib}", "{side} lateral {rib}"), ("{rib} {side}",)),
}

SIZE_WORDS = {"mild": ("small", "tiny", "trace", "minimal"), "moderate": ("moderate", "moderate-sized", "medium"),
              "severe": ("large", "sizeable", "very large")}
DEGREE_WORDS = {"mild": ("mild", "minimal", "slight", "faint"), "moderate": ("moderate", "moderately extensive"),
                "severe": ("severe", "extensive", "marked", "dense")}
SIZED = ("Nodule", "Mass", "Pleural Effusion", "Pneumothorax", "Hernia")
ADVERBS = {"mild": ("mildly", "slightly", "minimally", "borderline"), "moderate": ("moderately", "clearly"),
           "severe": ("severely", "markedly", "massively")}

POSITIVE = Bank((
    "There is {a}.", "There {is} {a} present.", "{n} {is} present.", "{n} {is} seen.", "{n} {is} noted.", "{n}.",
    "{n} {is} identified.", "{n} {is} visualized.", "{n} {is} demonstrated.", "The examination shows {a}.",
    "The radiograph demonstrates {a}.", "Findings include {a}.", "Note is made of {a}.", "{n} {is} evident.",
    "{n} {is} observed on this frontal view.", "This study shows {a}.", "In addition, there {is} {a}.",
    "{n} {is} shown.",
    "The most notable finding is {a}.", "Also seen is {a}.", "{n} {is} visible on the frontal projection.",
    "Imaging features are those of {a}."),
    ("Attention is drawn to {a}.", "{n} {is} appreciated.", "{n} {has} become apparent.", "The film reveals {a}.",
     "One can see {a}.", "We note {a}.", "{n} {is} readily apparent.", "On today's film there {is} {a}.",
     "Of significance, there {is} {a}.", "The appearances are in keeping with {a}."))

PAIRED = Bank((
    "{a} with associated {n2}.", "{a} and {n2} are present.", "There is {a} with accompanying {n2}.",
    "{n} is seen together with {n2}.", "{n}, with {n2}."),
    ("{n} coexists with {n2}.", "There is {a}, in combination with {n2}."))

HEDGED = Bank((
    "Possible {n}.", "Questionable {n}.", "There may be {a}.", "{n} may be present.", "{n} cannot be excluded.",
    "{n} is not entirely excluded.", "Cannot exclude {a}.", "There is a suggestion of {a}.", "This may represent {a}.",
    "Findings could reflect {a}.", "An ill-defined density may represent {a}.", "{n} is suspected.",
    "There is possibly {a}.", "Findings raise the question of {a}."),
    ("{n} remains a consideration.", "Equivocal {n}.", "Subtle change that might indicate {a}.",
     "{n} is difficult to exclude.", "It is uncertain whether there is {a}.", "Conceivably {a}."))

NEGATED = Bank((
    "No {n}.", "There is no {n}.", "No evidence of {n}.", "There is no evidence of {n}.", "No {n} is seen.",
    "No {n} is identified.", "{n} is not seen.", "No definite {n}.", "No visible {n}.", "Negative for {n}.",
    "No {n} is present.", "There is no radiographic evidence of {n}.", "No {n} is appreciated.",
    "{n} is not demonstrated.", "The study is without {n}.", "No convincing {n}.", "No new {n}.", "No sign of {n}."),
    ("{n} is absent.", "No {n} is detected.", "Free of {n}.", "We see no {n}.", "No suggestion of {n}.",
     "{n} has not developed.", "No {n} can be made out.", "No radiographic features of {n}."))

NEGATED_LISTS = Bank((
    "No {list_or}.", "There is no {list_or}.", "No evidence of {list_or}.", "There is no evidence of {list_or}.",
    "No {list_or} is seen.", "Negative for {list_or}.", "No {list_or} identified.", "There is no visible {list_or}."),
    ("No {list_nor}.", "The film is free of {list_or}.", "We find neither {list_pair}."))

# Whole sentences that say that a finding is there, where the language does not take the shape of a noun phrase.
STATEMENTS = {
    "Nodule": Bank(("A {cm} cm nodule projects over the {side} {zone} lung.",
                    "A rounded {cm} cm opacity {place} is compatible with a nodule."),
                   ("The {side} {zone} lung contains a {cm} cm nodule.",)),
    "Mass": Bank(("A {big} cm mass projects over the {side} {zone} lung.",
                  "A large irregular opacity measuring {big} cm {place} represents a mass."),
                 ("The {side} {zone} lung is occupied by a {big} cm mass.",)),
    "Consolidation": Bank(("The {side} {zone} lung is {sevly}consolidated.",
                           "Air bronchograms are seen within consolidated lung {place}."),
                          ("Consolidated lung is noted {place}.",)),
    "Pleural Effusion": Bank(("There is blunting of the {side} costophrenic angle due to pleural fluid.",
                              "Fluid layers in the {side} pleural space and obscures the hemidiaphragm.",
                              "The {side} costophrenic sulcus is effaced by an effusion."),
                             ("A fluid meniscus from an effusion is seen on the {side}.",)),
    "Pneumothorax": Bank(("A visceral pleural line is seen on the {side} with no lung markings peripherally, "
                          "consistent with pneumothorax.",
                          "The {side} lung is {sevly}collapsed by a pneumothorax."),
                         ("Peripheral lucency without lung markings on the {side} indicates a pneumothorax.",)),
    "Cardiomegaly": Bank(("The heart is {sevly}enlarged.", "The cardiac silhouette is {sevly}enlarged.",
                          "Heart size is {sevly}increased.", "The cardiac shadow is {sevly}widened."),
                         ("The heart exceeds half of the thoracic diameter.",
                          "The cardiac contour is {sevly}enlarged.")),
    "Atelectasis": Bank(("Streaky bands {place} are consistent with atelectasis.",
                         "Parts of the lung {place} are {sevly}atelectatic."),
                        ("The {side} hemidiaphragm is raised with adjacent atelectasis.",)),
    "Edema": Bank(("Perihilar haze and septal lines are consistent with {Sev}pulmonary edema.",
                   "There are bilateral interstitial opacities with Kerley B lines from edema.",
                   "The lungs are {sevly}congested with edema."),
                  ("Hazy perihilar opacity on both sides is due to {Sev}edema.",)),
    "Fracture": Bank(("The {side} {rib} rib is fractured.",
                      "There is cortical discontinuity of the {side} {rib} rib in keeping with a fracture."),
                     ("The {side} {rib} rib is broken with a step-off.",)),
    "Emphysema": Bank(("The lungs are {sevly}hyperinflated with flattened diaphragms, consistent with emphysema.",
                       "The lungs are emphysematous.",
                       "Hyperlucent lungs with flattening of the hemidiaphragms reflect {Sev}emphysema."),
                      ("Both lungs are {sevly}overexpanded by emphysema.",)),
    "Hernia": Bank(("Part of the stomach lies above the diaphragm, consistent with a hiatal hernia.",
                    "A retrocardiac air-fluid level represents a {Sev}hiatal hernia."),
                   ("The stomach has herniated into the chest behind the heart.",)),
    "Granuloma": Bank(("A small dense calcification {place} represents a granuloma.",
                       "A calcified focus projects over the {side} {zone} lung, consistent with a granuloma."),
                      ("The {side} {zone} lung bears the calcified scar of a granuloma.",)),
}

# Sentences that say that something is normal; each rules out the findings that it is listed under.
NORMAL_PARTS = {
    "Cardiomegaly": Bank(("The heart is normal in size.", "Heart size is normal.",
                          "The heart size is within normal limits.",
                          "The cardiac silhouette is normal.", "The cardiac silhouette is not enlarged."),
                         ("The cardiothoracic ratio is normal.", "The heart is not enlarged.")),
    "Pleural Effusion": Bank(("The costophrenic angles are sharp.", "The pleural spaces are free of fluid.",
                              "The costophrenic sulci are clear."),
                             ("Both costophrenic recesses are well defined.",)),
    "Edema": Bank(("Pulmonary vascularity is normal.", "The pulmonary vessels are within normal limits.",
                   "The pulmonary vasculature is not congested."),
                  ("Pulmonary blood flow appears normal.",)),
    "Fracture": Bank(("The visualized ribs are intact.", "The osseous structures are intact.",
                      "The bony thorax is unremarkable."),
                     ("The rib cage is intact.",)),
    "Emphysema": Bank(("The lungs are normally inflated.", "Lung volumes are normal.", "The lungs are well expanded."),
                      ("Inflation of the lungs is normal.",)),
}
LUNGS_CLEAR = Bank((
    "The lungs are clear.", "Both lungs are clear.", "The lungs are clear bilaterally.",
    "Lungs are clear and well aerated.", "Clear lungs.", "The lung fields are clear."),
    ("The lungs show no abnormality.", "Both lungs appear normal.", "The lung parenchyma is unremarkable."))
NORMAL_WHOLE = Bank((
    "No acute cardiopulmonary abnormality.", "No acute cardiopulmonary process.", "Normal chest radiograph.",
    "Normal chest.", "No acute disease.", "Unremarkable examination of the chest.", "No acute findings.",
    "No radiographic evidence of acute cardiopulmonary disease.", "Negative chest.",
    "No active disease in the chest."),
    ("The chest is normal.", "Normal study.", "No abnormality is identified.", "No significant abnormality."))

UNCHANGED = Bank((
    "{n} {is} unchanged.", "Unchanged {n}.", "Stable {n}.", "{n} {is} again seen.",
    "{n} {is} similar to the prior study.", "{n} {is} not significantly changed.", "Redemonstration of {a}.",
    "Persistent {n}."),
    ("{n} {is} as before.", "{n} {has} not changed in the interval.", "Known {n}, without change."))
NEW = Bank((
    "New {n}.", "{n} {is} new since the prior examination.", "Interval development of {a}.",
    "There is new {n} compared with the prior radiograph."),
    ("{n} {has} developed since the last study.", "{n} was not present previously."))

EXAM = Bank((
    "CHEST RADIOGRAPH, {view} VIEW", "XR CHEST 1 VIEW", "Chest, single frontal view", "FRONTAL CHEST RADIOGRAPH",
    "Chest x-ray, {view}", "CHEST {view} {number}", "Single view of the chest"),
    ("PLAIN FILM OF THE CHEST", "Thorax, {view} projection", "One-view chest film"))
INDICATION = Bank((
    "Cough.", "Shortness of breath.", "Chest pain.", "Fever and productive cough for {number} days.",
    "Preoperative evaluation.", "{age}-year-old with dyspnea.", "{age}-year-old with weakness.", "Trauma.",
    "Status post fall {number} days ago.",
    "Routine follow-up.", "Weight loss and fatigue.", "Hypoxia.", "{age}-year-old, evaluate for {n}.", "Rule out {n}.",
    "Wheezing.", "Positive tuberculin test, screening before employment.", "Sepsis workup."),
    ("Exertional breathlessness since {number} weeks.", "{age}-year-old with malaise.", "Night sweats.",
     "Question of {n}.", "Annual medical.", "Collapse at home.", "Check before anesthesia."))
COMPARISON = Bank((
    "Chest radiograph dated {date}.", "Prior study of {date}.", "Radiographs from {date} and earlier.", "{date}.",
    "Comparison is made with the examination of {date}."),
    ("Previous film taken on {date}.", "Earlier imaging from {date} was reviewed."))
NO_COMPARISON = Bank(("None.", "None available.", "No prior studies are available.", "No relevant prior imaging."),
                     ("Nil.", "No earlier films at hand."))
TECHNIQUE = Bank((
    "A single {view} radiograph of the chest was obtained at {time}.", "Single frontal {view} view of the chest.",
    "Frontal radiograph of the chest was acquired with the patient upright.",
    "Digital radiography of the chest in one projection, {kv} kV.",
    "One {view} view of the chest was submitted for review.",
    "The image was acquired at {time} with a mobile unit.", "{view} technique was used at a distance of {feet} feet."),
    ("A {view} projection was taken with a flat-panel detector at {kv} kV.", "Exposure was made at {time}.",
     "One image was archived and reviewed on a diagnostic workstation."))
PROJECTIONS = Bank((
    "The patient is slightly rotated.", "Evaluation is mildly limited by patient rotation.",
    "The examination is of adequate technical quality.", "Inspiratory effort is adequate.",
    "The image is slightly underexposed, which limits fine detail.", "The film is somewhat overexposed.",
    "Overlying soft tissues limit evaluation to some degree.", "Positioning is satisfactory.",
    "The chin projects over the medial apices.", "External leads and clothing project over the chest.",
    "The lateral soft tissues are partly outside the field of view.", "Portable technique limits assessment.",
    "The trachea is midline.", "The upper abdomen is included to the level of the stomach."),
    ("Patient habitus reduces image quality a little.", "The scapulae are not fully thrown off the chest.",
     "Quality of the film is acceptable.", "There is motion of the patient's arms at the margin of the film.",
     "The film was taken in a moderate degree of rotation.", "The first ribs are superimposed on the clavicles."))
_LIMITS = ("The image is slightly underexposed, which limits fine detail.", "The film is somewhat overexposed.",
           "Evaluation is mildly limited by patient rotation.", "The patient is slightly rotated.",
           "The film was taken in a moderate degree of rotation.")
_PRAISE = ("The examination is of adequate technical quality.", "Quality of the film is acceptable.",
           "Positioning is satisfactory.")
# What a report does not say after the sentence about quality that it has already.
CONTRARY = {**{x: _PRAISE + tuple(y for y in _LIMITS if y != x) for x in _LIMITS}, **dict.fromkeys(_PRAISE, _LIMITS)}

DEVICES = {
    "pacemaker": Bank(("A {side} chest wall pacemaker is in place with leads in unchanged position.",
                       "Cardiac pacing device with its generator on the {side} is noted.",
                       "Dual lead pacemaker with tips in expected position."),
                      ("The {side} pectoral generator and its electrodes are well placed.",)),
    "wires": Bank(("Monitoring leads overlie the chest.", "ECG leads project over the thorax.",
                   "Overlying cardiac monitor wires are present."), ("Telemetry electrodes cross the field.",)),
    "clips": Bank(("Surgical clips project over the {side} axilla.", "Metallic clips are present on the {side}.",
                   "Postsurgical clips are again seen."), ("Vascular clips lie in the {side} axillary fold.",)),
    "sternotomy": Bank(("Median sternotomy wires are intact.", "The patient has had a median sternotomy.",
                        "Sternal wires are aligned."), ("Wire sutures of the sternum are unbroken.",)),
    "central line": Bank(("A central venous catheter terminates in the superior vena cava.",
                          "The {side} central line tip projects over the cavoatrial junction.",
                          "Central venous access from the {side} is in standard position."),
                         ("A venous catheter ends at the level of the carina.",)),
}
RECOMMENDATIONS = Bank((
    "Clinical correlation is recommended.", "Follow-up radiograph in {number} weeks is suggested if symptoms persist.",
    "Dedicated two-view chest radiography can be obtained when the patient is able.",
    "Consider further evaluation with CT if clinically indicated.", "Recommend repeat imaging after treatment.",
    "Continued radiographic follow-up is advised.", "Correlation with laboratory values is suggested.",
    "Comparison with outside films, if available, would be helpful."),
    ("Control film in {number} weeks is proposed.", "A lateral view may help if doubt remains.",
     "Please correlate with physical examination.", "Further imaging at the discretion of the clinical team."))
COMMUNICATION = Bank((
    "The results were communicated to the referring service by telephone at {time} on {date}.",
    "These results were entered into the critical results system at {time}.",
    "The report was discussed with the treating physician at {time}.",
    "Results were conveyed to the nurse in charge at {time} and read back.",
    "A preliminary interpretation was given to the emergency department at {time}.",
    "The attending radiologist has reviewed the image and agrees with the interpretation.",
    "This report was dictated with voice recognition software and may contain transcription errors."),
    ("The ward was informed at {time} on {date}.", "A copy of this report was sent to the family physician on {date}.",
     "The image was double read on {date}."))
FILLERS = Bank((
    "The stomach bubble is in its expected position.", "The visualized upper abdomen is unremarkable.",
    "The mediastinal contours are appropriate for age.", "The thoracic spine is included in the field of view.",
    "The aortic knob is well seen.", "The soft tissues are unremarkable.", "The hilar contours are unremarkable.",
    "The spine is faintly visible through the mediastinum.", "The clavicles are symmetric.",
    "The acromioclavicular joints are at the edge of the film.", "No radiopaque foreign body.",
    "The diaphragm is well visualized in its medial portions.", "Nipple shadows are noted.",
    "The patient was scanned in the {department} at {time}.", "Images {number} of {number} were reviewed.",
    "Accession number ending in {four} was used for this encounter.",
    "Examination ordered through the {department} on {date}."),
    ("The descending aorta can be followed to the diaphragm.", "The lower thoracic spine is partly visible.",
     "The azygos fissure is not developed.", "The shoulders are only partly included.",
     "Dense breast shadows overlie the chest.", "Study identifier {four} was assigned at {time}.",
     "The request was received from the {department} on {date}."))
DEPARTMENTS = ("emergency department", "intensive care unit", "outpatient clinic", "surgical ward", "medical ward",
               "cardiology service", "oncology clinic", "recovery room", "pulmonary clinic", "orthopedic ward")
RIBS = {"upper": (("third", "3rd"), ("fourth", "4th"), ("fifth", "5th")),
        "mid": (("fifth", "5th"), ("sixth", "6th"), ("seventh", "7th")),
        "lower": (("seventh", "7th"), ("eighth", "8th"), ("ninth", "9th"))}

NAMED_BANKS = {"heads": HEADS, "absent heads": ABSENT_HEADS, "places": PLACES, "before": BEFORE,
               "statements": STATEMENTS, "normal parts": NORMAL_PARTS, "devices": DEVICES}
PLAIN_BANKS = {
    "positive": POSITIVE, "paired": PAIRED, "hedged": HEDGED, "negated": NEGATED, "negated lists": NEGATED_LISTS,
    "lungs clear": LUNGS_CLEAR, "normal whole": NORMAL_WHOLE, "unchanged": UNCHANGED, "new": NEW, "exam": EXAM,
    "indication": INDICATION, "comparison": COMPARISON, "no comparison": NO_COMPARISON, "technique": TECHNIQUE,
    "projections": PROJECTIONS, "recommendations": RECOMMENDATIONS, "communication": COMMUNICATION, "fillers": FILLERS}


def all_banks() -> dict[str, Bank]:
    """Every bank under its name, "heads/Nodule" for the members of a group."""
    return {**PLAIN_BANKS, **{f"{group}/{name}": bank for group, banks in NAMED_BANKS.items()
                              for name, bank in banks.items()}}
