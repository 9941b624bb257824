"""The sounds of English as targets for the vocal tract, and words to say.

A row of the table is a stretch of a sound: its duration, the formants that the tract aims at, and
the strength of each source. A stop is a closure, a burst and what follows; a diphthong two
vowels. Formants of 0 are left to the neighbours, as in an h or a pause.

References:
    | Control methods used in a study of the vowels (Peterson and Barney, 1952)
    | https://doi.org/10.1121/1.1906875 (formants of vowels, men)
    | Software for a cascade/parallel formant synthesizer (Klatt, 1980)
    | https://doi.org/10.1121/1.383940 (formants of consonants)
"""

from functools import cache

import numpy as np

__all__ = ["PAUSE", "WORDS", "phones"]

PAUSE = "SIL"

TABLE = """
phone  ms    F1   F2   F3   voice  breath  hiss  centre  width
SIL   220     0    0    0   0      0       0      0      0

IY    100   270 2290 3010   1      0       0      0      0
IH     75   390 1990 2550   1      0       0      0      0
EH     85   530 1840 2480   1      0       0      0      0
AE    115   660 1720 2410   1      0       0      0      0
AA    115   730 1090 2440   1      0       0      0      0
AO    115   570  840 2410   1      0       0      0      0
UH     75   440 1020 2240   1      0       0      0      0
UW    100   300  870 2240   1      0       0      0      0
AH     75   640 1190 2390   1      0       0      0      0
ER    110   490 1350 1690   1      0       0      0      0
EY     60   500 1900 2500   1      0       0      0      0
EY     70   300 2250 2950   1      0       0      0      0
AY     75   730 1150 2440   1      0       0      0      0
AY     75   380 2050 2600   1      0       0      0      0
OW     65   560  950 2400   1      0       0      0      0
OW     65   360  830 2250   1      0       0      0      0
AW     75   730 1250 2440   1      0       0      0      0
AW     75   400  900 2250   1      0       0      0      0

W      65   290  610 2150   0.55   0       0      0      0
Y      60   260 2070 3020   0.55   0       0      0      0
R      65   310 1060 1380   0.6    0       0      0      0
L      65   310 1050 2880   0.5    0       0      0      0
M      70   250 1000 2150   0.35   0       0      0      0
N      65   250 1600 2600   0.35   0       0      0      0
NG     75   250 2000 2850   0.35   0       0      0      0

HH     65     0    0    0   0      0.22    0      0      0
F     100   340 1100 2080   0      0       0.035 7000   5000
TH     90   320 1290 2540   0      0       0.03  6500   4000
S     110   320 1390 2530   0      0       0.22  6000   1300
SH    110   300 1840 2750   0      0       0.25  3000    900
V      60   220 1100 2080   0.35   0       0.02  7000   5000
DH     50   270 1290 2540   0.35   0       0.02  6500   4000
Z      80   240 1390 2530   0.25   0       0.12  6000   1300

P      70   300  900 2150   0      0       0      0      0
P      10   350  900 2150   0      0.05    0.2    900    700
P      35     0    0    0   0      0.2     0      0      0
T      60   300 1700 2650   0      0       0      0      0
T      14   300 1700 2650   0      0.05    0.25  4500   1600
T      40     0    0    0   0      0.16    0.05  4500   1600
K      60   280 2000 2600   0      0       0      0      0
K      18   280 2000 2600   0      0.05    0.25  1900    500
K      40     0    0    0   0      0.2     0      0      0
B      60   200  900 2150   0.12   0       0      0      0
B       8   300  900 2150   0.4    0       0.08   900    700
D      50   200 1700 2650   0.12   0       0      0      0
D      10   300 1700 2650   0.4    0       0.1   4000   1600
G      50   200 2000 2600   0.12   0       0      0      0
G      14   280 2000 2600   0.4    0       0.1   1900    500
CH     50   300 1800 2700   0      0       0      0      0
CH     75   300 1840 2750   0      0       0.25  3200    900
JH     45   220 1800 2700   0.12   0       0      0      0
JH     55   260 1840 2750   0.25   0       0.16  3200    900
"""

LEXICON = """
a AH; about AH B AW1 T; after AE1 F T ER; again AH G EH1 N; air EH1 R; all AO1 L; and AE N D;
animal AE1 N AH M AH L; at AE T; back B AE1 K; because B IH K AO1 Z; before B IH F AO1 R;
begin B IH G IH1 N; better B EH1 T ER; big B IH1 G; bird B ER1 D; black B L AE1 K;
blue B L UW1; book B UH1 K; boy B AO1 IH; bring B R IH1 NG; but B AH T; by B AY; call K AO1 L;
can K AE N; change CH EY1 N JH; children CH IH1 L D R AH N; city S IH1 T IY; clean K L IY1 N;
close K L OW1 Z; cold K OW1 L D; country K AH1 N T R IY; cut K AH1 T; day D EY1; deep D IY1 P;
door D AO1 R; down D AW1 N; dream D R IY1 M; each IY1 CH; early ER1 L IY; earth ER1 TH;
eat IY1 T; eight EY1 T; evening IY1 V N IH NG; eye AY1; face F EY1 S; family F AE1 M L IY;
far F AA1 R; father F AA1 DH ER; feel F IY1 L; field F IY1 L D; find F AY1 N D; fire F AY1 ER;
fish F IH1 SH; five F AY1 V; follow F AA1 L OW; four F AO1 R; friend F R EH1 N D;
garden G AA1 R D AH N; girl G ER1 L; give G IH1 V; gold G OW1 L D; good G UH1 D;
green G R IY1 N; hand HH AE1 N D; happy HH AE1 P IY; head HH EH1 D; hear HH IY1 R; heavy HH EH1
V IY; here HH IY R; hill HH IH1 L; home HH OW1 M; house HH AW1 S; how HH AW; idea AY D IY1 AH;
in IH N; is IH Z; island AY1 L AH N D; job JH AA1 B; just JH AH S T; keep K IY1 P; kind K AY1 N D;
king K IH1 NG; large L AA1 R JH; late L EY1 T; leave L IY1 V; letter L EH1 T ER; light L AY1 T;
little L IH1 T AH L; long L AO1 NG; machine M AH SH IY1 N; many M EH1 N IY; me M IY; moon M UW1 N;
morning M AO1 R N IH NG; mother M AH1 DH ER; mountain M AW1 N T AH N; music M Y UW1 Z IH K;
my M AY; name N EY1 M; near N IY1 R; never N EH1 V ER; new N UW1; night N AY1 T; nine N AY1 N;
no N OW1; number N AH1 M B ER; of AH V; often AO1 F AH N; on AO N; one W AH1 N; open OW1 P AH N;
orange AO1 R AH N JH; paper P EY1 P ER; people P IY1 P AH L; picture P IH1 K CH ER;
place P L EY1 S; question K W EH1 S CH AH N; quiet K W AY1 AH T; rain R EY1 N; read R IY1 D;
red R EH1 D; remember R IH M EH1 M B ER; river R IH1 V ER; road R OW1 D; room R UW1 M;
said S EH D; school S K UW1 L; sea S IY1; seven S EH1 V AH N; she SH IY; ship SH IH1 P;
short SH AO1 R T; side S AY1 D; simple S IH1 M P AH L; six S IH1 K S; sleep S L IY1 P;
small S M AO1 L; snow S N OW1; some S AH M; song S AO1 NG; speech S P IY1 CH; spring S P R IH1 NG;
star S T AA1 R; still S T IH1 L; stone S T OW1 N; story S T AO1 R IY; street S T R IY1 T;
summer S AH1 M ER; table T EY1 B AH L; ten T EH1 N; that DH AE T; the DH AH; these DH IY Z;
they DH EY; thing TH IH1 NG; think TH IH1 NG K; three TH R IY1; time T AY1 M; to T UW;
together T AH G EH1 DH ER; town T AW1 N; tree T R IY1; two T UW1; under AH1 N D ER; us AH S;
very V EH1 R IY; voice V AO1 IH S; wait W EY1 T; walk W AO1 K; warm W AO1 R M; was W AH Z;
watch W AA1 CH; water W AO1 T ER; we W IY; week W IY1 K; white W AY1 T; wind W IH1 N D;
window W IH1 N D OW; winter W IH1 N T ER; with W IH TH; woman W UH1 M AH N; word W ER1 D;
work W ER1 K; world W ER1 L D; year Y IH1 R; yellow Y EH1 L OW; yes Y EH1 S; you Y UW;
young Y AH1 NG; zero Z IY1 R OW
"""

WORDS = {
    word: tuple(sounds)
    for word, *sounds in (entry.split() for entry in LEXICON.replace("\n", " ").split(";"))
}
"""The sounds of every word; a 1 marks the vowel that carries the stress."""


@cache
def phones() -> dict[str, np.ndarray]:
    """Reads the table.

    Returns:
        For each phone its stretches, (n, 9): duration in ms, F1, F2, F3 in Hz, amplitudes of
        voice, breath and hiss relative to a vowel's, centre and width of the hiss in Hz.
    """
    rows: dict[str, list[list[float]]] = {}
    for line in TABLE.split("\n")[2:]:
        if line:
            phone, *numbers = line.split()
            rows.setdefault(phone, []).append([float(number) for number in numbers])
    return {phone: np.array(stretches) for phone, stretches in rows.items()}
