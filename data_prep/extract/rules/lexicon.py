"""The words of the rules extractor: what each literal of a chest report can mean.

A literal has roles. FINDING names findings; BARE names one together with the membrane before it (`MEMBRANES`), SITED
one of the lungs where the sentence speaks of them (`LUNG_SITE`); SUBJECT and PREDICATE make a finding together
("heart" + "enlarged", `STATEMENTS`); the roles of cues are in `lexicon_cues`.
Literals are in the alphabet of `scanner.normalise` (lower case, no hyphens); `scanner.expand` writes them out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType

from data_prep.extract.rules.lexicon_cues import CUES
from data_prep.extract.rules.scanner import expand
from lgdea_jax.findings.vocabulary import BY_NAME, FINDINGS

FINDING, SUBJECT, PREDICATE, BARE, SITED = "finding", "subject", "predicate", "bare", "sited"

# Words of the vocabulary that mean too many other things when they stand alone in a report.
_TOO_GENERAL = frozenset(("low volumes", "support device", "median sternotomy", "sternotomy", "lesion", "spurring",
    "collapse", "malignancy", "neoplasm",
                          "tumor", "medical device", "foreign material", "wall calcification", "icd", "pericardial "
                                                                                                      "thickening",
    "tracheostomy tube"))

# Words that say of a finding only that it may be there: a nodular opacity need not be a nodule.
_VAGUE = {"Nodule": ("nodular (opacity|opacities|density|densities)",)}

# A tip and a generator stand among the devices because, where de-identification masked the device's name, all that a
# report still says of it is where its tip lies.
_MORE_FINDINGS = {
    "Cardiomegaly": (
        "cardio(| )meg(|aly)", "megalocardia", "(enlargement|dilatation|dilation) of (the |)(heart|cardiac silhouette|"
                                               "cardiac chambers)",
        "(increase|increased) (in |)(heart|cardiac) size", "(cardiothoracic (ratio|index)|ctr) (is |)(increased|"
                                                           "enlarged)",
        "cardiac (silhouette |shadow |)enlargement", "enlarged cardiopericardial silhouette",
        "cor bovinum", "(left|right) ventricular (enlargement|hypertrophy|dilatation|dilation)", "globular heart",
        "biventricular enlargement", "cmg"),
    "Lung Opacity": (
        "(ggo|ggos|ggn|opac|opacs)", "gg (opacity|opacities)",
        "ground glass (area|areas|appearance|density increase|density increases|attenuation|nodule|nodules|infiltrate|"
        "infiltrates|changes)", "crazy paving", "(air space|airspace) shadowing",
        "(hazy|patchy|ill defined|increased|lung) shadowing", "white out", "density (increase|increases)",
        "(alveolar|airspace|air space|interstitial|parenchymal|reticular|reticulonodular|linear|streaky|"
        "pulmonary) (disease|opacity|opacities|opacification|density|densities)", "opacifications", "haziness",
        "nodular (opacity|opacities|density|densities)", "airspace (process|changes)", "ground glass", "opaque",
        "(calcific|calcified) (opacity|opacities|density|densities)", "haz(y|e)"),
    "Edema": (
        "(chf|congestive heart failure|congestive cardiac failure|congestive failure)",
        "(interstitial |alveolar |pulmonary |)(edema|oedema)", "fluid overload", "volume overload"),
    "Consolidation": (
        "consol(s|)", "consolidat(ive|ed) (area|areas|opacity|opacities|segment|lobe|process)", "consolidative",
        "air bronchograms",
        "consolidat(ion|ions|ive change|ive changes|ed lung)",),
    "Pneumonia": (
        "(pna|pnas)", "(broncho|pleuro)pneumonia", "(broncho|)pneumonic( change| changes| infiltration| "
        "consolidation| process|)",
        "chest infection", "(pulmonary|lung) (infection|abscess)",
        "lower respiratory tract infection", "features of infection", "(infective|infectious) (change|changes|"
                                                                   "consolidation)",
        "pneumoni(a|as|c infiltrate|c infiltrates|c consolidation)", "(infectious|inflammatory) infiltrate"),
    "Atelectasis": (
        "(atel|atx)", "dystelecta(sis|ses|tic)", "atelectatic (area|areas|band|bands|segment|lobe)",
        "collapsed (lung|lobe|segment|right|left)( lung| upper lobe| lower lobe| middle lobe|)",
        "collapse of the (right|left|entire|whole) (lung|upper lobe|lower lobe|middle lobe)",
        "(upper|lower|middle|right|left) lobe collapse", "collapse consolidation",
        "collapse of (either|both|a|any) (lung|lungs|lobe)",
        "atelecta(sis|ses|tic change|tic changes|tic lung|tic opacity|tic opacities)", "atelectatic",
        "(lobe|lobar|lung|segmental|complete) collapse", "collapse of the (right|left) lung"),
    "Pneumothorax": (
        "(ptx|ptxs|pnx|hydroptx|hydropneumothorax|hemopneumothorax|haemopneumothorax)",
        "(air|gas) in the pleural (space|cavity)", "pleural (air|gas)",
        "pneumo(| )thora(x|xes|ces)", "hydropneumothora(x|ces)"),
    "Pleural Effusion": (
        "(eff|effs|pl eff)", "(haemo|hemo|hydro|chylo|pyo)thora(x|ces)", "(plural|parapneumonic|bilateral|loculated|"
                                                                         "free) "
        "(effusion|effusions)", "(free |)(pleural|plural) (fluid|liquid|effusion)", "(fluid|liquid) (collection |)in "
                                                                                    "the (left |right |)"
        "(pleural (space|cavity)|pleura|fissure|fissures|hemithorax|minor fissure|major fissure)",
        "(fluid|liquid) in (both|either) pleural (spaces|cavities|space|cavity)", "(hydro|hemo|haemo)pneumothorax",
        "pleural (or|and|/) pericardial (effusion|effusions|fluid)", "pericardial (or|and|/) pleural (effusion|"
                                                                     "effusions|"
        "fluid)", "pleural effusion(s|) (or |and |/ |/|)thickening", "pleural thickening (or|and|/) effusion",
        "empyema", "(fluid|effusion) (has |)(re|)accumulat(ed|ing|ion)",
        "(pleural |)(effusion|effusions|fluid collection|fluid collections)", "pleural fluid",
        "subpulmonic (effusion|fluid)", "fluid in the (fissure|fissures|pleural space)", "pleural collection(s|)",
        "(loculated|layering|encysted|loculate) fluid"),
    "Pleural Thickening": (
        "pleural effusion(s|) (or |and |/ |/|)thickening", "pleural thickening (or|and|/) effusion",
        "thickening of (the |)(pleura|pleural surfaces|fissure)", "pachypleuritis", "thickened pleura",
        "(apical |biapical |pleural |apical pleural )(cap|caps|capping)", "(fissural|pleural) thickening",
        "(apical|biapical|basal|basilar|focal|diffuse|circumferential|costal|lateral) pleural thickening"),
    "Pleural Other": (
        "pleural (parenchymal |)(scarring|plaque|plaques|opacity|density|calcification|calcifications)",
        "calcified (pleural |)(plaque|plaques)", "pleural disease"),
    "Nodule": (
        "(nodul(e|es|us)|nodular (lesion|lesions|structure|structures|formation|formations))", "spn",
        "(ggn|ground glass (nodule|nodules))", "tree in bud", "(subsolid|solid|part solid|pulmonary|parenchymal) "
        "(nodule|nodules)", "coin lesion",
        "(nodular|mass) (or|and|/) (infiltrative|nodular|mass|infiltration) (lesion|lesions)",
        "nodular (infiltrative|mass) lesion(s|)",
        "(lung |pulmonary |)(nodule|nodules)", "nodular (lesion|focus|foci)", "nodularity",
        "micronodul(e|es|ar opacities)", "calcified (lung |pulmonary |parenchymal |)(nodule|nodules)"),
    "Mass": (
        "(mass lesion|mass lesions|space occupying lesion)", "(mass|nodular) (or|and|/) (infiltrative|mass|nodular) "
                                                             "(lesion|lesions)",
        "(lung |pulmonary |hilar |mediastinal |)(mass|masses)", "mass like (opacity|density|consolidation)",
        "(pancoast|superior sulcus) (tumor|tumour)", "(lung|bronchogenic|pulmonary|bronchial) (cancer|carcinoma|"
        "malignancy|neoplasm|tumor|tumour)"),
    "Lung Lesion": ("(lung|pulmonary|parenchymal) (lesion|lesions)",),
    "Cavitation": ("cavit(y|ation|ary lesion|ary lesions|ary mass|ary nodule|ating lesion|ary|ated|ating)", "cavities"),
    "Granuloma": (
        "(calcified |)granulom(a|as|ata)",
        "(old |prior |previous |remote |calcified |chronic |healed |)granulomatous( disease| change| changes| "
        "infection| process| exposure| residual| residuals| sequela| sequelae| calcification| calcifications|)",
        "calcified (lung |pulmonary |parenchymal |)(nodule|nodules|lesion|lesions|focus|foci)",
        "(ghon|ranke) (complex|focus|lesion)"),
    "Calcification Other": (
        "calcification(s|)", "(calcified|calcific) (thoracic |)aorta",
        "(calcific|calcified) (opacity|opacities|density|densities)",
        "calcified (lung |pulmonary |parenchymal |)(nodule|nodules|lesion|lesions|focus|foci)",
        "calcified sequela(e|)", "(calcified|calcific) (pleural |)(plaque|plaques)", "pleural calcification(s|)",
        "calcific aortic disease", "(calcified|calcific) aortic (knob|arch|xxxx|disease)",
        "(aortic |vascular |aortic vascular |aortic arch |aortic knob |aortic xxxx )(calcification|calcifications)",
        "calcified (hilar |mediastinal |perihilar |infracarinal |subcarinal |)(lymph |)(node|nodes)",
        "calcified lymph xxxx", "calcified (hilum|hila|lymphadenopathy)"),
    "Emphysema": (
        "(panlobular|panacinar|paraseptal|centriacinar|centrilobular|bullous) emphysema", "(air cyst|air cysts|"
                                                                                          "bullous)",
        "(bullous |centrilobular |paraseptal |)emphysem(a|atous change|atous changes|atous disease)", "emphysematous",
        "bull(a|ae|ous disease|ous changes|ous change)", "bleb(s|)"),
    "COPD": ("(chronic |)obstructive (pulmonary|lung|airway|airways) disease", "copd"),
    "Hyperinflation": (
        "hyper(inflation|expansion|aeration|lucency|distention)", "over(inflation|expansion)", "air trapping"),
    "Low Lung Volume": (
        "low volume (film|study|lungs|chest)",
        "hypo(inflation|aeration|expansion|ventilation)", "under(| )(inflation|expansion|aeration)",
        "(low|lower|decreased|reduced|diminished) (lung |inspiratory |)volumes",
        "(low|lower|small|decreased|reduced|diminished) (lung |inspiratory )volume(s|)",
        "(shallow|poor|low|suboptimal|incomplete|limited) (inspiration|inspiratory effort|lung inflation|lung "
        "expansion)"),
    "Fibrosis": (
        "fibrosing (interstitial |)(pneumonia|alveolitis|lung disease|disease)",
        "(ild|ipf|uip|nsip)", "(usual|nonspecific) interstitial pneumonia", "fibroti(c|sing) lung disease",
        "honeycomb(ing|)( change| changes| pattern| lung|)", "interstitial (fibrosis|lung diseases)",
        "(pulmonary |interstitial |chronic |)(fibrosis|fibrotic change|fibrotic changes)", "fibrotic", "honeycombing",
        "chronic interstitial", "(chronic |)interstitial (lung disease|pulmonary disease|fibrosis)",
        "chronic interstitial (disease|lung changes)"),
    "Infiltrate": (
        "infiltrative (change|changes|lesion|lesions)", "(nodular|mass) (or|and|/) infiltrative "
        "(lesion|lesions)"),
    "Scar": ("scar(s|ring|red|)", "pleural (parenchymal |)scarring",
    "cicatri(x|ces|cial changes|cial change|zation|cial)", "scar(ring|) tissue"),
    "Hernia": (
        "(sliding |sliding type |)(hiatal|hiatus) (hernia|hernias)", "hh",
        "(hiatal |hiatus |diaphragmatic |paraesophageal |bochdalek |morgagni |)(hernia|hernias)",
        "(hiatal|hiatus|diaphragmatic) herniation(s|)", "(gastric|stomach|bowel|colonic) (herniation|herniates|"
        "herniated)", "herniation of the (stomach|bowel|colon)",
        "intrathoracic stomach"),
    "Fracture": (
        "(fx|fxs|fxr|frx)", "(wedge|compression|burst|anterior wedge) (fracture|compression)",
        "(vertebral|wedge|osteoporotic|pathological|vertebral body) (compression|collapse)",
        "collapse of (the |)(vertebra|vertebral body|(t|l)(1|2|3|4|5|6|7|8|9|10|11|12))",
        "(bony|osseous|skeletal|rib) (injury|injuries|trauma)", "(cortical|bony) (break|step off|disruption|buckling)",
        "(rib |ribs |clavicle |clavicular |vertebral |compression |humerus |sternal |)(fracture|fractures)",
        "fracture deformit(y|ies)", "fractured", "broken (rib|ribs|clavicle|bone|bones)",
        "compression deformit(y|ies)"),
    "Support Devices": (
        "(ett|ngt|ogt|cvc|ppm|iabp|tlc|dht|icds|crt d|vad|rvad|ecmo|impella|pacs port|uvc|uac|peg|pacer wire|"
        "mediports)",
        "cardiac resynchroni(s|z)ation (device|therapy)( device|)",
        "(ecmo |venous |arterial |nasal |drainage |jugular |femoral |)cannula(s|e|)", "(ecmo|extracorporeal membrane "
                                                                                      "oxygenation)",
        "(lines|line|tubes|tube|drains|catheters|devices) (or|and|/) (lines|line|tubes|tube|drains|catheters|devices)",
        "(tubes|drains|drain|catheters)", "(support|monitoring|life support|indwelling|implanted) "
        "(device|devices|apparatus|hardware|line|lines|tube|tubes)",
        "(endotracheal|nasogastric|orogastric|nasoenteric|nasojejunal|chest|tracheostomy|feeding|enteric|jejunostomy|"
        "endobronchial|sengstaken|intercostal|salem sump|double lumen) (tube|tubes|drain|drains|catheter)",
        "(trach|trach tube|tracheostomy cannula)", "(permcath|broviac|groshong|quinton|shiley|vascath|pleurx|aspira|"
        "tunneled line|tunnelled line|tunneled catheter|introducer sheath|vascular sheath|venous sheath|midline "
        "catheter)",
        "(swan|pa catheter|pulmonary artery catheter|swan ganz|cordis|introducer)", "(watchman|mitraclip|amplatzer|"
        "micra|leadless pacemaker|leadless pacer|tavi|tavr|valve ring|septal occluder|closure device|occluder)",
        "(temperature|esophageal|temp) probe", "(port chamber|port reservoir|port catheter|chemo port|chemoport|"
        "port a cath|chest port)", "(epicardial|temporary|pacing|pacemaker|transvenous) (wire|wires|lead|leads|"
                                   "electrode|"
        "electrodes|battery)", "(icd|pacemaker|defibrillator) (battery|electrode|electrodes)", "intubated",
        "-extubated", "-extubation",
        "dob(|b)hoff( tube| catheter|)", "(all|indwelling|vascular|central|support) lines",
        "(picc|cvc|ij|subclavian|femoral|dialysis|central venous|arterial) (line|lines|catheter|catheters)",
        "(intra aortic|intraaortic|aortic) balloon( pump|)", "(baclofen|insulin|infusion|pain) pump",
        "(thoracostomy|pleural|chest|mediastinal|pigtail|percutaneous|surgical|pericardial) (tube|tubes|drain|drains|"
        "catheter|catheters)", "endobronchial valve(s|)",
        "(central |)(venous |)(catheter|catheters)", "(central |picc |ij |subclavian |venous |)line (tip|in place)",
        "(picc|picc line|central line|central venous line|dialysis catheter|hickman|mediport|infusaport|"
        "portacath|port a cath|port a xxxx|port catheter|chest port|chemotherapy port|infusion port|powerport|"
        "mediport catheter)",
        "(right|left) (sided |)(chest |internal jugular |subclavian |ij |chest wall |anterior chest |)(port|line|"
        "picc)",
        "(pacemaker|pacemakers|pacer|pacing|aicd|icd|defibrillator) (lead|leads|wires|wire|device|generator|)",
        "(dual|single|triple|biventricular) (lead|chamber) (pacemaker|pacer|icd|aicd|device|cardiac device)",
        "(cardiac|implanted|electronic|stimulator|stimulation|neurostimulator) (device|devices|leads|lead|generator)",
        "(valve |valvular )(replacement|prosthesis)", "(mitral|aortic) valve replacement",
        "(prosthetic|artificial|mechanical|bioprosthetic) (aortic |mitral |tricuspid |pulmonic |pulmonary |heart "
        "|cardiac |)(valve|valves)", "tube", "devices", "(the|this|that) drain",
        "(implanted|implantable|subcutaneous|venous access) port(s|)",
        "(all |)(lines and tubes|tubes and lines)", "cardiac xxxx with leads",
        "(endotracheal|et|ng|nasogastric|orogastric|enteric|feeding|chest|thoracostomy|tracheostomy|gastric|"
        "dobbhoff|drainage|gastrostomy|peg|g|og|et) (tube|tubes)", "(chest|surgical|pleural|mediastinal) drain(s|)",
        "annuloplasty( ring|)", "(left |)ventricular assist device", "lvad", "tavr", "valve prosthes(is|es)",
        "(implanted|implantable|electronic|monitoring) (device|devices)", "tracheostomy",
        "(nerve |spinal |vagal |) stimulator", "(nerve |spinal |vagal )stimulator", "stimulator",
        "swan ganz( catheter|)", "pigtail (catheter|drain)", "loop recorder", "(ivc|vena cava|caval) filter",
        "vp shunt", "(distal |proximal |catheter |line |tube |lead |)tip(s|)",
        "(pulse |cardiac |pacemaker |)generator(s|)", "(pacing|pacemaker) (electrode|electrodes|leads)",
        "medi port", "port a cath(s|eter)",
        "(shoulder|humeral|humerus|hip|joint) (arthroplasty|prosthesis|prostheses|replacement|hardware)",
        "prosthetic (left |right |)(shoulder|humerus|humeral head|joint)", "(bone|suture) anchor(s|)",
        "ventriculoperitoneal shunt", "shunt (catheter|tubing)", "dobbhoff",
        "(external |)(cardiac |)(monitor|monitoring|ekg|ecg) leads", "(ventricular|atrial) leads",
        "intra aortic balloon pump"),
    "Surgical Hardware": (
        "(sternal|sternotomy) (suture|sutures|wires|wire|cerclage)( material| materials|)",
        "(suture|metallic suture|surgical suture|operation|clip|surgical) (material|materials)", "(surgical|skin) "
                                                                                                 "staples",
        "(cabg|coronary bypass) (graft|grafts|materials)",
        "(surgical |cholecystectomy |vascular |hemostatic |mediastinal |axillary |hilar |metallic |cabg |)(clip|"
        "clips|staple|staples)", "(surgical |chain |) suture(s| line| material|)", "suture(s| line| material|)",
        "(median |midline |)sternotomy (wire|wires|suture|sutures)", "sternal (wire|wires|sutures)",
        "cerclage wires", "wires",
        "(coronary |aortic |tracheal |vascular |stent )(stent|stents|graft)", "stent(s|)",
        "cabg( markers| clips| changes|)", "coronary (artery |)bypass( graft| grafting| surgery|)",
        "(spinal|cervical|thoracic|lumbar|spine) (fusion|hardware|rods|fixation)( hardware| plate|)",
        "(harrington|spinal|fixation|metallic) (rod|rods)",
        "(orthopedic|surgical|fixation|fusion|metallic) (hardware|device|plate|screws|material|instrumentation)",
        "breast (implant|implants|prosthesis|prostheses)", "(cervical|anterior|interbody) fusion", "acdf",
        "(pedicle|fixation|cortical) (screw|screws|rod|rods|plate|plates)", "(cervical|spinal|metallic) plate(s|)",
        "(metallic|metal|internal) (hardware|fixation|sutures|wires)", "(surgical|sternal|cerclage|cabg) wire(s|)",
        "(bone |surgical |orthopedic |)screw(s|)", "(embolization |vascular |)coil(s|)", "gastric band", "lap band",
        "(vertebroplasty|kyphoplasty|bone) cement",
        "surgical xxxx"),
    "Scoliosis Or Kyphosis": (
        "(kypho|dextro|levo|roto|)scolio(sis|tic curvature|tic deformity)", "(dextro|levo) (scoliosis|curvature)",
        "(hyper|)kypho(sis|tic curvature)", "kyphotic", "scoliotic", "(thoracic |spinal |) curvature",
        "(dextro|levo)(curvature|convex curvature)", "(s shaped |rightward |leftward )curvature",
        "curvature of the (thoracic |)spine"),
    "Degenerative Spine": (
        "(ddd|degenerative (spondylo|)arthro(sis|pathy|tic changes))", "(schmorl|syndesmophyt)(s nodes|es|e)",
        "(osteophytic|degenerative|spondylotic) (tapering|taperings|bridging|bridgings|formations|findings|spur|spurs)",
        "degenerative (endplate |disc |disk |joint |spine |spinal |spondylitic |bony |osseous |)(change|changes|"
        "disease|spurring|disk disease|disc disease)", "osteophyt(e|es|ic change|ic changes|osis|ic spurring)",
        "spondyl(osis|itic change|itic changes|otic change|otic changes|otic spurring)", "spinal spurring", "djd",
        "degenerative (spondylosis|spondylitis|sclerosis|osteophytes|osteophytosis|osteophyte)", "osteophytic",
        "(disc|disk) (space |)height loss", "loss of (disc|disk) (space |)height", "spondylotic",
        "(disc|disk) (space |)(narrowing|disease|degeneration)", "endplate (spurring|changes|sclerosis)",
        "(hypertrophic|arthritic|spondylitic|bony|vertebral) (spurring|spurs)", "hypertrophic (change|changes)",
        "(diffuse idiopathic skeletal hyperostosis|dish)", "marginal spurring", "bridging osteophytes",
        "arthritic changes of the spine", "anterior spurring", "degenerative xxxx"),
    "Aortic Abnormality": (
        "(aorta|aortic) (dilatation|dilation|ectasia|aneurysm|elongation)", "(thoracic aortic|descending aortic|"
                                                                            "ascending aortic) "
        "(aneurysm|dilatation|dilation|ectasia)", "aneurysm of the (thoracic |ascending |descending |)aorta",
        "dissection flap",
        "(calcified|calcific) (thoracic |)aorta", "(aortic |)atheroscleros(is|es)",
        "atherosclerotic( vascular| aortic|) (calcification|calcifications|disease|change|changes|plaque|aorta)",
        "aortic (calcification|calcifications|ectasia|tortuosity|aneurysm|atherosclerosis|unfolding|dilatation|"
        "dilation|xxxx calcification|xxxx calcifications|knob calcification|arch calcification|arch "
        "calcifications|vascular calcifications|sclerosis)", "calcific aortic disease",
        "atheromatous (change|changes|calcification|disease)", "arteriosclerotic (change|changes|disease|aorta)",
        "arterioscleros(is|es)", "(calcified|calcific) (aortic|atherosclerotic) (knob|arch|plaque|xxxx|disease)"),
    "Arterial Wall Calcification": (
        "(calcified |calcific |)(atheroma|atherom|atheromatous|atherosclerotic) (plaque|plaques)( formation| "
        "formations|)",
        "(calcific|calcified) (atherosclerotic|atheromatous) (change|changes|wall change|wall changes|disease)",
        "(arterial|aortic|vascular|vessel) wall (calcification|calcifications)", "calcific plaques", "calcified "
                                                                                                     "plaque(s|)",
        "(calcified|calcific) (thoracic |)aorta",
        "(aortic |vascular |arterial |aortic vascular |aortic arch |aortic knob |aortic xxxx )(calcification|"
        "calcifications)",
        "(atheromatous|arteriosclerotic) (calcification|calcifications)",
        "calcific (aortic |vascular |)(atherosclerosis|atherosclerotic disease|disease of the aorta)",
        "calcific aortic disease", "(calcified|calcific) (aortic|atherosclerotic) (knob|arch|plaque|xxxx|disease)",
        "atherosclerotic (aortic |vascular |)(calcification|calcifications)",
        "(calcifications|calcified plaques|calcific plaques|atheroma plaques|plaques) (of|in) the coronary arteries "
        "and "
        "(the |)(thoracic aorta|aorta|aortic arch)"),
    "Elevated Diaphragm": (
        "(hemidiaphragm|diaphragm) (elevation|paralysis)", "(raised|high riding|elevated) (right |left |)(hemi|hemi )"
                                                           "diaphragm","eventration", "(diaphragm|diaphragmatic|"
                                                                                      "hemidiaphragm) (eventration|"
        "elevation)"),
    "Pulmonary Congestion": (
        "(chf|congestive heart failure|congestive cardiac failure|congestive failure)", "(pulmonary venous|vascular) "
        "(hypertension|redistribution|distension|distention|fullness|plethora)", "pvc pattern",
        "upper (lobe|zone) (venous |blood |)"
                                                                                                "diversion",
        "(pulmonary |central |vascular |venous |interstitial |) congestion",
        "(pulmonary |central |)(vascular|venous) (congestion|engorgement|prominence|redistribution|cephalization|"
        "hypertension)", "cephalization",
        "(central |)pulmonary (vascular |venous |)(congestion|engorgement|prominence)", "congestive changes"),
    "Lymphadenopathy": (
        "(hilar |mediastinal |axillary |)(lymph|)adenopath(y|ies)", "lad",
        "(enlarged|pathological|pathologic|bulky|prominent|pathologically enlarged) (hilar |mediastinal |axillary |"
        "thoracic |"
        "subcarinal |paratracheal |)(lymph |)(node|nodes|ln|lns)", "lymphadenomegal(y|ies)", "bulky hila",
        "(node|nodes|lymph node|lymph nodes) (in|of|with) (pathological|pathologic) (size|sizes|dimension|dimensions|"
        "appearance|size and appearance|size or appearance|dimensions and appearance)",
        "pathological(ly|) (sized |)(lymph |)nodes", "pathologically enlarged",
        "(nodal|lymph node) (enlargement|mass|masses|conglomerate|conglomerates)", "conglomerate (lymph |)nodes"),
    "Peribronchial Thickening": (
        "(peribronchial|bronchial|peribronchovascular|airway|bronchus) (wall |)(thickening|thickenings|cuffing|"
        "thickness "
        "increase|thickness increases|thickness)", "thickening of (the |)(bronchial walls|bronchial wall|airway walls|"
        "peribronchovascular interstitium|bronchi)", "thickened (bronchial walls|bronchi|airways)", "tram (track|line)"
                                                                                                    "( opacities|)"),
    "Interlobular Septal Thickening": (
        "(interlobular |inter lobular |)(septal|septa|septum) (thickening|thickenings|lines|thickness increase|"
        "thickness "
        "increases|prominence)", "kerley( s|) (a |b |)lines", "thickening of (the |)(interlobular |)sept(a|ae|um)",
        "thickened (interlobular |)sept(a|ae)", "(interlobular|inter and intralobular|intra and interlobular) (septal |"
        "interstitial |)thickening(s|)"),
    "Pericardial Effusion": (
        "pericardial (effusion|effusions|fluid|eff|liquid|collection)", "(fluid|effusion|liquid) in the (pericardium|"
        "pericardial (space|cavity|sac|area))", "pericardial (or|and|/) pleural (effusion|effusions|fluid)",
        "pleural (or|and|/) pericardial (effusion|effusions|fluid)", "hemopericardium",
        "pericardial effusion(s|) (or |and |/ |/|)thickening", "pericardial thickening (or|and|/) effusion"),
    "Coronary Artery Wall Calcification": (
        "(cac|cacs)", "coronary (artery |arterial |)(wall |)(calcification|calcifications|atherosclerosis|plaque|"
                      "plaques|"
        "calcium|atheroma|calcified plaques|atheroma plaques)", "(calcified|calcific) coronary (plaque|plaques|artery|"
                                                                "arteries|"
        "artery disease|disease)", "(lad|circumflex|rca|left main) (calcification|calcifications|plaque)",
        "(calcification|calcifications|calcified plaque|calcified plaques|calcific plaques|atheroma plaques|calcified "
        "atheroma "
        "plaques|plaques) (of|in) the coronary arter(y|ies)( and the aorta| and aorta| and the thoracic aorta|"
        " and thoracic aorta| and the aortic arch|)"),
    "Mosaic Attenuation Pattern": ("mosaic (attenuation|perfusion|density|pattern|lung|appearance|attenuations)"
        "( pattern| difference| differences|)",),
    "Pulmonary Fibrotic Sequela": (
        "(sequela|sequelae|sequel|sequelar) (fibrotic |fibroatelectatic |parenchymal |pleuroparenchymal |linear |)"
        "(change|"
        "changes|density|densities|band|bands|recession|recessions|fibrosis|lesion|lesions|scarring|thickening|"
        "findings)",
        "(pleuroparenchymal|fibroatelectatic|fibrotic) (sequela|sequelae|sequel|sequelar)( change| changes| density| "
        "densities| "
        "band| bands| fibrotic changes|)", "fibrotic (band|bands|recession|recessions|streak|streaks|density|"
                                           "densities)",
        "pleuroparenchymal (fibrotic |)(band|bands|change|changes|scarring|density|densities)",
        "(fibroatelectatic|fibro atelectatic) (band|bands|change|changes|density|densities)",
        "(parenchymal|fibrous|fibrotic) band(s|)", "post infectious (scarring|changes)"),
    "Pneumomediastinum": ("(air|gas|free air) in the mediastinum", "mediastinal (air|gas|emphysema)"),
    "Bronchiectasis": (
        "bronchiect(asis|ases|atic change|atic changes|asia|atic|atic area|atic areas|atic appearance)",
        "(dilated|ectatic) (bronchi|bronchus|airways)", "(bronchial|airway) (dilatation|dilatations|dilation|ectasia|"
                                                        "ectasias)",
        "(dilatation|dilatations|dilation) of the bronchi", "signet ring (sign|signs|appearance)"),
    "Pneumoperitoneum": (
        "pneumoperitoneum", "free (intraperitoneal |subdiaphragmatic |intra abdominal |peritoneal |abdominal |)(air|"
        "gas)",
        "(subdiaphragmatic|subphrenic|intraperitoneal) (air|gas)"),
    "Subcutaneous Emphysema": (
        "(subcutaneous|subcut|subq|sub q|sq|surgical|soft tissue|chest wall|cervical) (emphysema|air|gas)",
        "(air|gas) in the (soft tissues|subcutaneous tissues|chest wall)"),
}

# "Pericardial thickening without fluid": the membrane that was named before is meant.
_BARE = {"effusion": "Effusion", "fluid": "Effusion", "liquid": "Effusion", "thickening": "Thickening",
    "plaque": "Other",
         "plaques": "Other"}
MEMBRANE_BEHIND = re.compile(
    r"(?:\s+[a-z]+){0,4}?\s+(?:in|of|around|at|within)\s+(?:the|both)\s+(?:(?P<Pericardial>pericardi\w+|heart)"
    r"|(?P<Pleural>(?:(?:left|right|lower|lung)\s+)*(?:pleur\w+|hemithorax|hemithoraces|costophrenic|fissures?|bases?)))")
MEMBRANES = re.compile(r"(?:(?P<Pericardial>pericardi\w+)|(?P<Pleural>pleura\w*(?:\s*(?:or|and|"
    r"/)\s*pericardi\w+)?))\s+(?:(?!and\b|pleura|pericardi)[a-z]+,?\s+){0,4}$")

# Words that mean a finding of the lungs where the sentence speaks of the lungs, or lists them beside a finding.
_SITED = {
    "Lung Lesion": "lesion(s|)", "Consolidation": "consolidated", "Mass": "tumo(u|)r(s|)",
    "Atelectasis": "(collapse|collapsed|collapses)", "Lung Opacity": "(opacified|shadow|shadows|shadowing)"}
LUNG_SITE = re.compile(
    r"\b(?:(?:upper|middle|lower) lobes?|lungs?|pulmonary|lingula|[rlb](?:ul|ll)|rml|zones?|apex|apices|hil(?:um|a|ar)|"
    r"perihilar|bases?|basal|hemithorax|bronch(?:us|i|ial))\b")

_SUBJECTS = {
    "heart": (
        "heart( size| shadow| silhouette| contour| contours|)",
        "cardiac (silhouette|shadow|contour|contours|size|silhouette size|heart|borders)", "cardiac",
        "(cardio|cardiac |cardio )pericardial silhouette", "heart xxxx", "cardiothoracic (ratio|index)"),
    "coronary": ("coronary arter(y|ies)", "left anterior descending( coronary|)( artery|)", "circumflex artery",
        "left main( stem|)( coronary|)( artery|)", "coronaries",
        "coronary (arterial walls|artery walls|vascular structures|"
                                                        "vessels)",
        "(in|of|to|proximal|mid|distal) (the |)(lad|circumflex|rca)"),
    "septa": ("(interlobular |)sept(a|ae)",), "airways": ("bronchi", "bronchus", "bronchial walls", "airways",
        "airway walls", "(main |segmental |subsegmental |peripheral |lower lobe )bronchi"),
    "cardiomediastinum": (
        "(cardiomediastinal|cardio mediastinal|cardiac mediastinal) (silhouette|silhouettes|contour|contours|"
        "structures|borders|outline|size|shadow|)", "cardiomediastinum", "cardiomediastinal"),
    "mediastinum": (
        "(superior |upper |)mediastin(um|al contour|al contours|al silhouette|al structures|al width|al|al borders)",
        "mediastinal and hilar contours", "vascular pedicle", "paratracheal stripe"),
    "lungs": ("lung(s|)( fields| field| zones| parenchyma| bases|)", "pulmonary parenchyma", "lung xxxx"),
    "volumes": (
        "lung volume(s|)", "inspiratory (volume|volumes|effort)", "volumes", "inspiration",
        "(lung |pulmonary )(inflation|expansion|aeration)"),
    "diaphragm": (
        "(hemi|)diaphragm(s|)", "hemidiaphragmatic (contour|contours)", "diaphragmatic (contour|contours)",
        "hemi diaphragm(s|)", "diaphragmatic"),
    "angle": (
        "costophrenic( angle| angles| sulcus| sulci| recess| recesses| xxxx|)", "(cp|cardiophrenic) (angle|angles)",
        "cpa(s|)",
        "(pleural |lateral |posterior |)sulc(us|i)", "(lateral |posterior |phrenic |)angle(s|)", "costophrenic "
                                                                                                 "sinus(es|)",
        "xxxx sulci", "pleural space"),
    "pleura": ("pleura(e|)", "pleural (spaces|surfaces|margins)"),
    "aorta": (
        "(thoracic |descending |ascending |descending thoracic |ascending thoracic |)aorta",
        "aortic (arch|knob|contour|xxxx|silhouette|)", "aortic", "great vessels"),
    "vessels": (
        "(central |pulmonary |hilar |lung |bronchovascular |perihilar |pulmonary interstitial |)(vascularity|"
        "vasculature|vascular markings|vessels|vascular structures)", "pulmonary (vascular|xxxx)",
        "pulmonary arteries and veins", "pulmonary vascular (markings|pattern)"),
    "bones": (
        "(osseous|bony|skeletal) (structures|thorax|elements|structure|abnormality)", "bones", "ribs",
        "bony (framework|xxxx)", "skeleton", "(rib|clavicle|clavicles|scapula|sternum|humerus)",
        "vertebral (corpus|body|bodies|corpora) (height|heights)"),
    "spine": (
        "(thoracic |lumbar |cervical |thoracolumbar |t |mid thoracic |)spine",
        "(thoracic |)vertebra(l bodies|l body|e|)", "(t|l)(4|5|6|7|8|9|10|11|12|1|2|3)( vertebra| vertebral body|)"),
    "nodes": (
        "(hilar |mediastinal |infrahilar |axillary |subcarinal |paratracheal |)(lymph |)(node|nodes|ln|lns)",
        "(hilar |mediastinal |)lymph xxxx",
        "(hilar |mediastinal |)(lymph|)adenopathy"),
    "hila": ("hil(a|um|ar contours|ar structures|ar)", "perihilar"),
    "organs": (
        "mitral (annulus|valve)", "aortic valve", "spleen", "trachea",
        "tracheobronchial tree", "(costal |costochondral |rib |tracheal |)cartilage(s|)", "pericardium"),
    "spaces": ("disc space(s|)", "disk space(s|)"),
    "arteries": ("(arterial|vessel|vascular) walls", "(supra aortic |thoracic |great |)arteries", "arch vessels"),
    "gas": ("air", "gas", "lucency", "air collection(s|)", "emphysema"),
}

_PREDICATES = {
    "enlarged": (
        "(borderline |)enlarged", "enlargement", "large", "increased in size", "(pathologically |mildly |)"
                                                                               "enlarged", "dilated", "big",
        "widened", "widening", "wide", "broad(ened|ening|)", "bulky",
        "(larger|wider|bigger|greater) than normal",
        "(in |of |reached |)pathological(ly|) (size|sizes|dimension|dimensions|appearance|size and (appearance|"
        "configuration|shape))", "is big"),
    "thickened": ("thickened", "thickening", "thick", "thicker", "(increase|increased) (in |)thickness"),
    "compressed": ("compressed", "wedged", "crushed", "fractured", "broken", "loss of height", "height loss",
        "lost height", "(reduced|"
                                                                                                   "decreased) (in |)"
        "height"),
    "prominent": ("prominen(t|ce)",),
    "borderline": ("borderline( in size| size| enlarged|)",),
    "upper": (
        "upper limit(s|) (of |)normal( in size| size|)", "(upper|top|high) normal( in size| size| limits|)",
        "top limits of normal", "upper limits", "limits of normal", "top normal in size"),
    "low": ("low", "decreased", "reduced", "diminished", "small", "shallow", "lower"),
    "full": ("good", "full", "deep", "adequate", "satisfactory"), "dry": ("dry",),
    "poor": ("poor", "suboptimal", "submaximal", "incomplete", "inadequate", "limited"),
    "hypoinflated": (
        "hypo(inflated|expanded|aerated|ventilated|ventilatory)", "under(| )(inflated|expanded|aerated|ventilated)",
        "(poorly|incompletely|suboptimally) (inflated|expanded|aerated)", "low in volume"),
    "hyperinflated": (
        "hyper(inflated|expanded|lucent|aerated|distended|extended)", "over(inflated|expanded|distended)",
        "hyper (inflated|expanded)"),
    "increased": ("increased",),
    "flattened": ("flatten(ed|ing)", "flat", "depress(ed|ion)"),
    "elevated": ("elevat(ed|ion)", "eventrat(ed|ion)", "high riding", "raised", "pushed up", "displaced upward(s|)",
    "high(er|)( than expected| in "
                                                                                "position|)"),
    "blunted": ("blunt(ed|ing|s)", "obscur(ed|ation)", "obliterat(ed|ion)", "effac(ed|ement)", "lost", "filled( in|)",
        "(not|no longer) (sharp|preserved|well defined)", "loss of (the|)"),
    "tortuous": (
        "tortuous", "tortuosity", "ectatic", "ectasia", "unfold(ed|ing)", "uncoil(ed|ing)",
        "dilat(ed|ation|ations|ion|ions)",
        "aneurysm", "aneurysmal", "elongat(ed|ion)"),
    "atherosclerotic": (
        "(calcific |calcified |)(atheroma|atherosclerotic|atheromatous) (plaque|plaques|change|changes|wall changes|"
        "disease)",
        "(calcified|calcific) plaque(s|)", "atheroscler(otic|osis)",
        "(atherosclerotic|atheromatous) calcification(s|)", "arterioscler(otic|osis)",
        "atheromatous"),
    "calcified": (
        "calcif(ied|ic)", "calcification(s|)", "partially calcified", "densely calcified",
        "(vascular|mural|wall) calcification(s|)", "(calcific|calcified) (plaque|plaques|foci|atheroma plaques)"),
    "degenerative": ("degenerative", "degenerated", "degeneration", "spurring", "narrowing", "narrowed"),
    "fused": ("(posterior |anterior |interbody |)fusion", "fused"),
    "congested": (
        "congest(ed|ion)", "engorg(ed|ement)", "cephaliz(ed|ation)", "plethoric", "indistinct", "accentuated",
        "redistribution", "distended", "fullness"),
    "unclear": ("(not|no longer|never|by no means|far from|anything but) (entirely |completely |fully |)clear",),
    # No statement follows from what is only not normal; where the size is meant it is too large.
    "abnormal": ("(not|no longer|never|by no means|far from|anything but) (a |an |entirely |completely |quite |"
    ")normal", "isn't normal"),
    "oversized": ("(not|no longer) (of |of a |within |)(normal|the normal) (in |)(size|width|calib(er|re)|limits|"
    "range)",
        "exceeds (the |)normal( limits| range| size|)"),
    "curved": ("curved", "scoliotic", "kyphotic"), "straight": ("straight",),
    "in the soft tissues": ("(in|through|within|into|of|along) the (subcutaneous |)(soft tissues|tissues|fat|chest "
    "wall)",
        "(in|within) subcutaneous tissues"),
    "about the mediastinum": ("(outlines|outlining|around|surrounding|dissecting|dissects) the (superior |anterior |)"
        "(mediastinum|mediastinal (structures|vessels))",),
    "under the diaphragm": ("(under|beneath|below) (the |both |either |)(right |left |)(hemi|)diaphragm(s|)",),
    "clear": ("clear", "well aerated", "normally aerated", "well inflated", "well expanded"),
    "normal": (
        "normal( in size| size| in contour| in appearance|)", "unremarkable", "within normal limits", "not enlarged",
        "intact", "low normal", "within normal range", "nl", "nml", "natural", "normally inflated",
        "not widened", "normal limits", "wnl", "normally (positioned|located|sited|placed)", "in (a |)normal position",
        "of normal (size|width|calib(er|re)|height|position|contour|appearance)",
        "normal (width|calib(er|re)|position)"),
    "sharp": ("sharp", "preserved", "well defined"),
}

# What a subject and a predicate state together: findings present, or, with "-", absent.
STATEMENTS: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType({
    ("heart", "enlarged"): ("Cardiomegaly",), ("heart", "prominent"): ("Cardiomegaly",),
    ("heart", "borderline"): ("?Cardiomegaly",), ("heart", "increased"): ("Cardiomegaly",),
    ("heart", "tortuous"): ("Cardiomegaly",), ("pleura", "thickened"): ("Pleural Thickening",),
    ("airways", "thickened"): ("Peribronchial Thickening",), ("septa", "thickened"): ("Interlobular Septal "
                                                                                      "Thickening",),
    ("airways", "tortuous"): ("Bronchiectasis",), ("airways", "enlarged"): ("Bronchiectasis",),
    ("airways", "calcified"): ("Calcification Other",),
    ("spine", "compressed"): ("Fracture",), ("bones", "compressed"): ("Fracture",),
    ("nodes", "normal"): ("-Lymphadenopathy",),
    ("coronary", "calcified"): ("Coronary Artery Wall Calcification", "Calcification Other"),
    ("coronary", "atherosclerotic"): ("Coronary Artery Wall Calcification",),
    ("heart", "normal"): ("-Cardiomegaly",), ("heart", "upper"): ("-Cardiomegaly",),
    ("cardiomediastinum", "enlarged"): ("Cardiomegaly", "Enlarged Cardiomediastinum"),
    ("cardiomediastinum", "prominent"): ("?Cardiomegaly", "Enlarged Cardiomediastinum"),
    ("cardiomediastinum", "borderline"): ("?Cardiomegaly",),
    ("cardiomediastinum", "normal"): ("-Cardiomegaly", "-Enlarged Cardiomediastinum"),
    ("mediastinum", "enlarged"): ("Enlarged Cardiomediastinum",), ("mediastinum",
        "prominent"): ("Enlarged Cardiomediastinum",),
    ("mediastinum", "normal"): ("-Enlarged Cardiomediastinum",),
    ("lungs", "hyperinflated"): ("Hyperinflation",), ("lungs", "hypoinflated"): ("Low Lung Volume",),
    ("lungs", "unclear"): ("Lung Opacity",),
    ("lungs", "clear"): ("-Lung Opacity", "-Consolidation"), ("lungs", "normal"): ("-Lung Opacity", "-Consolidation"),
    ("volumes", "low"): ("Low Lung Volume",), ("volumes", "increased"): ("Hyperinflation",),
    ("volumes", "enlarged"): ("Hyperinflation",), ("volumes", "normal"): ("-Low Lung Volume", "-Hyperinflation"),
    ("diaphragm", "elevated"): ("Elevated Diaphragm",), ("diaphragm", "flattened"): ("Hyperinflation",),
    ("diaphragm", "normal"): ("-Elevated Diaphragm",),
    ("angle", "blunted"): ("Costophrenic Blunting",),
    ("angle", "sharp"): ("-Pleural Effusion", "-Costophrenic Blunting"),
    ("angle", "clear"): ("-Pleural Effusion", "-Costophrenic Blunting"),
    ("angle", "normal"): ("-Pleural Effusion", "-Costophrenic Blunting"),
    ("pleura", "clear"): ("-Pleural Effusion",), ("pleura", "normal"): ("-Pleural Effusion",),
    ("aorta", "tortuous"): ("Aortic Abnormality",), ("aorta", "enlarged"): ("Aortic Abnormality",),
    ("aorta", "prominent"): ("Aortic Abnormality",), ("aorta", "atherosclerotic"): ("Aortic Abnormality",),
    ("aorta", "calcified"): ("Aortic Abnormality", "Arterial Wall Calcification", "Calcification Other"),
    ("aorta", "normal"): ("-Aortic Abnormality",),
    ("vessels", "congested"): ("Pulmonary Congestion",), ("vessels", "prominent"): ("Pulmonary Congestion",),
    ("vessels", "increased"): ("Pulmonary Congestion",), ("vessels", "enlarged"): ("Pulmonary Congestion",),
    ("vessels", "normal"): ("-Pulmonary Congestion",),
    ("bones", "normal"): ("-Fracture",), ("bones", "sharp"): ("-Fracture",), ("nodes", "calcified"): ("Calcification "
                                                                                                      "Other",),
    ("nodes", "enlarged"): ("Lymphadenopathy",), ("hila", "calcified"): ("Calcification Other",),
    ("organs", "calcified"): ("Calcification Other",),
    ("vessels", "calcified"): ("Calcification Other", "Arterial Wall Calcification"),
    ("spine", "degenerative"): ("Degenerative Spine",), ("spine", "fused"): ("Surgical Hardware",),
    ("spaces", "degenerative"): ("Degenerative Spine",),
    ("heart", "oversized"): ("Cardiomegaly",), ("mediastinum", "oversized"): ("Enlarged Cardiomediastinum",),
    ("cardiomediastinum", "oversized"): ("Enlarged Cardiomediastinum",), ("aorta",
        "oversized"): ("Aortic Abnormality",),
    ("nodes", "oversized"): ("Lymphadenopathy",),
    ("volumes", "poor"): ("Low Lung Volume",), ("volumes", "full"): ("-Low Lung Volume",),
    ("pleura", "dry"): ("-Pleural Effusion",), ("spine", "curved"): ("Scoliosis Or Kyphosis",),
    ("spine", "straight"): ("-Scoliosis Or Kyphosis",),
    ("arteries", "calcified"): ("Arterial Wall Calcification", "Calcification Other"),
    ("arteries", "atherosclerotic"): ("Arterial Wall Calcification",),
    ("gas", "in the soft tissues"): ("Subcutaneous Emphysema",), ("gas", "under the diaphragm"): ("Pneumoperitoneum",),
    ("gas", "about the mediastinum"): ("Pneumomediastinum",),
})

# A finding is something else when one of these words stands in its clause.
_BONE = ("bone", "bony", "osseous", "rib", "ribs", "vertebral", "spine", "humerus", "lytic", "sclerotic", "blastic",
    "clavicle")
BLOCKED: Mapping[str, frozenset[str]] = MappingProxyType({
    "Lung Opacity": frozenset((*_BONE, "metallic", "soft", "breast", "bullet", "tissue", "dental")),
    "Lung Lesion": frozenset(_BONE),
    "Infiltrate": frozenset((*_BONE, "marrow", "fatty")),
    "Consolidation": frozenset(("fracture", "fractures", "callus", "osteotomy")),
    "Nodule": frozenset(("thyroid", "nipple", "breast", "adrenal")),
    "Mass": frozenset(("cardiac", "breast", "index", "wall", "bowel")),
    "Degenerative Spine": frozenset((
        "shoulder", "shoulders", "acromioclavicular", "glenohumeral", "ac", "hip", "hips", "knee", "knees", "ankle",
        "foot", "midfoot", "wrist", "hand", "elbow", "costochondral", "costovertebral", "sternoclavicular", "humeral")),
    "Support Devices": frozenset(("ray", "neural", "eustachian", "scapula", "scapular", "rib", "ribs", "spinous",
    "finger")),
    "Fibrosis": frozenset(("cystic",)),
    "Edema": frozenset(("tissue", "subcutaneous", "marrow", "skin")),

})

# A statement that the study is normal, in the alphabet of `scanner.normalise`.
NORMALITY = re.compile(
    r"\b(?:(?:no|without|negative for)(?: (?:any|evidence (?:of|for)|radiographic|definite|significant|visible|"
    r"suspicious|other|obvious|convincing|findings of|signs? of))* (?:acute|active)"
    r"(?: (?:or|and|/) (?:acute|active|significant|focal))*"
    r"(?: (?:cardiopulmonary|cardio pulmonary|cardiothoracic|pulmonary|intrathoracic|thoracic|chest|lung|cardiac|"
        "disease|"
    r"cardiovascular|radiographic|or|and|process|abnormality)){0,5} ?(?:diseases?|abnormalit(?:y|ies)|process(?:es)?|"
    r"findings?|patholog(?:y|ies)|infiltrates?)?"
    r"|no (?:significant |radiographic |evidence of |visible |definite )*(?:cardiopulmonary|intrathoracic|chest|"
        "thoracic|"
    r"lung or pleural|pulmonary) (?:disease|abnormalit(?:y|ies)|findings?|pathology|process)"
    r"|(?:normal|negative|unremarkable|clear) (?:two view |2 view |pa and lateral |frontal and lateral |adult |exam "
        "of the "
    r")?(?:chest|examination|exam|study|radiographs?)|chest (?:is |radiograph is |x ray is )?(?:normal|unremarkable|"
    r"negative)|no (?:radiographic )?abnormalit(?:y|ies)|normal heart and lungs|study within normal limits)\b")


# Findings that other organs than those of the chest can have too.
OF_ANY_ORGAN = frozenset((
    "Calcification Other", "Cavitation", "Consolidation", "Edema", "Fibrosis", "Granuloma", "Infiltrate", "Lung Lesion",
    "Lung Opacity", "Mass", "Nodule", "Pleural Effusion", "Pulmonary Congestion", "Scar"))
_OTHER_ORGANS = (
    "(?:optic|retinal|macular|corneal|nasal|nose|throat|maxillary|ethmoid(?:al)?|sphenoid|paranasal|mastoid|orbit(?:s|al)?|parotid|brain|cerebral|scalp|face|facial|"
    "eyelids?|thyroid|breasts?|liver|hepatic|gallbladder|pancrea(?:s|tic)|adrenals?|renal|kidneys?|bladder|"
    "ovar(?:y|ian)|uter(?:us|ine)|prostate|prostatic|gastric|stomach|bowel|colon|colonic|mesenteric|peritoneal|"
    "abdom(?:en|inal)|pelvi(?:s|c)|skin|subcutaneous|soft tissues?|muscles?|joints?|arms?|hands?|hips?|knees?|ankles?|"
    "legs?|foot|feet|limbs?|extremit(?:y|ies)|shoulders?|elbows?|wrists?|myocardi(?:al|um)|spleen|splenic|scrot(?:al|um)|"
    "testicular|larynx|laryngeal|pharyn(?:x|geal)|tongue|appendix|duoden(?:al|um))")
_ORGAN_BEFORE = re.compile(
    rf"(?:^|(?<=\s)){_OTHER_ORGANS}\s+(?:[a-z0-9]+\s+)?(?:(?:has|shows?|contains?|demonstrates?)\s+(?:[a-z0-9]+\s+){{0,3}})?$"
    rf"|^\s*(?:[a-z]+\s+)?{_OTHER_ORGANS}\s*:")
_ORGAN_BEHIND = re.compile(
    r"\s+(?:(?:is|are|was|were|seen|noted|present|identified|observed|detected|found|visible|measuring|palpated|palpable|felt|known|again|also|"
    r"[\d.]+|cm|mm|x)\s+)*"
    r"(?:in|of|within|from|on|along|involving)\s+(?:(?:the|both|a|an|left|right|upper|lower|anterior|posterior)\s+)*"
    rf"{_OTHER_ORGANS}\b(?!\s+(?:lobe|lung|line))")
# A finding is something else when it goes on with these words.
GOES_ON: Mapping[str, re.Pattern[str]] = MappingProxyType({
    "Fracture": re.compile(r"\s+(?:(?:of|in|through)\s+)?(?:[a-z]+\s+){0,3}(?:wires?|leads?|screws?|hardware|"
    r"catheters?|stents?|rods?)\b"),
    "Consolidation": re.compile(
        r"\s+(?:of|at|across)\s+(?:the\s+)?(?:[a-z]+\s+){0,2}(?:fractures?|callus|graft|osteotomy|care|services|data)\b"),
    "Atelectasis": re.compile(r"\s+(?:by|from|because of|due to)\s+(?:[a-z]+\s+){0,2}pneumothorax\b"),
    "Support Devices": re.compile(r"\s+(?:current|voltage|angulation|angle|rotation|feeds?|feeding)\b"),
    "Hernia": re.compile(r"\s+(?:of|in)\s+the\s+(?:anterior\s+)?(?:abdominal wall|groin)\b"),
    "Infiltrate": re.compile(r"\s+of\s+(?:the\s+)?(?:local|lidocaine|an(?:a?)esthetic|contrast|chest wall|"
    r"mediastinum|pleura|ribs?|fat|muscles?)\b"),
    "Mass": re.compile(r"\s+(?:of|in|on)\s+(?:the\s+)?(?:patients?|people|body|chest wall|heart|atrium|ventricle)\b"),
})


_ORGAN = re.compile(rf"\b(?:{_OTHER_ORGANS}|vertebra[a-z]*|spine|airways?|trachea[a-z]*|patient|heart|cardiac|"
    rf"nipple)\b")


def in_lungs(sentence: str) -> bool:
    """Whether a sentence speaks of the lungs and of nothing else that can have a lesion or collapse."""
    return LUNG_SITE.search(sentence) is not None and not _ORGAN.search(sentence)


def elsewhere(before: str, behind: str) -> bool:
    """Whether the words around a finding, in its sentence, put it into an organ outside of the chest."""
    return bool(_ORGAN_BEFORE.search(before) or _ORGAN_BEHIND.match(behind))


def _plural(text: str) -> tuple[str, ...]:
    return (text,) if text[-1] in "sx" else (text, f"{text}s")


def _specific(names: list[str]) -> tuple[str, ...]:
    """Without the findings that another one of the list already implies by definition."""
    implied = {name for name in names for other in names if other in BY_NAME[name.lstrip("-")].members}
    return tuple(name for name in names if name not in implied)


# Words that name findings, long enough to be known when they are misspelt (`spelling`).
SPELT = frozenset((
    "adenopathy", "atelectasis", "atelectases", "atelectatic", "bronchiectasis", "bronchiectatic", "calcification",
    "calcifications", "calcified", "cardiomegaly", "catheter", "cavitation", "congestion", "consolidation",
    "consolidations", "costophrenic", "density", "diaphragm", "effusion", "effusions", "emphysema", "emphysematous",
    "endotracheal", "eventration", "fibrosis", "fibrotic", "fracture", "fractures", "granuloma", "granulomas",
    "granulomatous", "hemidiaphragm", "hernia", "honeycombing", "hyperinflation", "infiltrate", "infiltrates",
    "infiltration", "interlobular",
    "atherosclerosis", "atherosclerotic", "aneurysm", "defibrillator", "kyphoscoliosis", "mediastinal", "mediastinum",
    "kyphosis", "lesion", "lymphadenopathy", "nasogastric", "nodule", "nodules", "oedema", "opacities",
    "opacification", "opacity", "osteophytes", "pacemaker", "peribronchial", "pericardial", "pleural",
    "pneumomediastinum", "pneumonia", "pneumoperitoneum", "pneumothorax", "pneumothoraces", "pulmonary", "scarring",
    "scoliosis", "spondylosis", "subcutaneous", "thickening", "tracheostomy",
    "bilateral", "enlarged", "evidence", "hiatal", "interstitial", "suspicious", "unremarkable", "without"))


@functools.cache
def build() -> Mapping[str, Mapping[str, object]]:
    """Literal -> {role: value}.

    FINDING has a tuple of names ("?" before a vague one, "-" before one that the word denies), SUBJECT and PREDICATE
    their part of a key of `STATEMENTS`, BARE the noun that follows the membrane in a name, SITED a name, the others
    True.
    """
    roles: dict[str, dict[str, object]] = {}
    named: dict[str, list[str]] = {}
    for finding in FINDINGS:
        if finding.kind != "none":
            texts = [text.replace("-", " ") for text in finding.synonyms if text not in _TOO_GENERAL]
            texts += [text for pattern in _MORE_FINDINGS.get(finding.name, ()) for text in expand(pattern)]
            for text in filter(None, texts):
                name = f"-{finding.name}" if text[0] == "-" else finding.name
                for form in _plural(text.lstrip("-")):
                    if name not in named.setdefault(form, []):
                        named[form].append(name)
    vague = {(text, name) for name, patterns in _VAGUE.items() for pattern in patterns for text in expand(pattern)}
    for text, names in named.items():
        roles.setdefault(text, {})[FINDING] = tuple(
            f"?{name}" if (text, name) in vague else name for name in _specific(names))
    for role, table in ((SUBJECT, _SUBJECTS), (PREDICATE, _PREDICATES)):
        for value, patterns in table.items():
            for pattern in patterns:
                for text in expand(pattern):
                    roles.setdefault(text, {})[role] = value
    for text, noun in _BARE.items():
        roles.setdefault(text, {})[BARE] = noun
    for name, pattern in _SITED.items():
        for text in expand(pattern):
            roles.setdefault(text, {})[SITED] = name
    for role, patterns in CUES.items():
        for pattern in patterns:
            for text in expand(pattern):
                roles.setdefault(text, {})[role] = True
    roles.pop("", None)
    return MappingProxyType({text: MappingProxyType(value) for text, value in roles.items()})
