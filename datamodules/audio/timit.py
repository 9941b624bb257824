"""TIMIT, by the split of the VRNN's literature and by that of speech recognition."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.audio.corpus import AudioCorpus
from datamodules.files.splits import held_back

__all__ = ["CORE_TEST", "DEV", "TIMIT"]

UTTERANCES = {"TRAIN": 4620, "TEST": 1680}

CORE_TEST = frozenset(
    """
    MDAB0 MWBT0 FELC0 MTAS1 MWEW0 FPAS0 MJMP0 MLNT0 FPKT0 MLLL0 MTLS0 FJLM0
    MBPM0 MKLT0 FNLP0 MCMJ0 MJDH0 FMGD0 MGRT0 MNJM0 FDHC0 MJLN0 MPAM0 FMLD0
    """.split()
)
"""The speakers of the core test set."""

DEV = frozenset(
    """
    FAKS0 FDAC1 FJEM0 MGWT0 MJAR0 MMDB1 MMDM2 MPDF0 FCMH0 FKMS0 MBDG0 MBWM0 MCSH0 FADG0 FDMS0
    FEDW0 MGJF0 MGLB0 MRTK0 MTAA0 MTDT0 MTHC0 MWJG0 FNMR0 FREW0 FSEM0 MBNS0 MMJR0 MDLS0 MDLF0
    MDVC0 MERS0 FMAH0 FDRW0 MRCS0 MRJM4 FCAL1 MMWH0 FJSJ0 MAJC0 MJSW0 MREB0 FGJD0 FJMG0 MROA0
    MTEB0 MJFC0 MRJR0 FMML0 MRWS1
    """.split()
)
"""The speakers of the development set that recognition systems take from the test folder."""

FILE = re.compile(
    r"(?:.*/)?(TRAIN|TEST)/(DR[1-8])/([FM][A-Z]{3}[0-9])/((?:SA|SI|SX)\d+)\.WAV(?:\.WAV)?"
)


class TIMIT(AudioCorpus):
    """TIMIT (LDC93S1), 630 speakers of ten sentences each; upper or lower case, SPHERE or WAV.

    Args:
        split: "vrnn", all utterances, 5 % of the training folder for validation, by utterance and
            at random, hence by speakers of the training, as in the literature (4,389 / 231 /
            1,680), unless `lists` has the lists of a paper; "asr",
            without the two sentences that all speakers read, validation and the core test by
            speakers of the test folder (3,696 / 400 / 192).
        **kwargs: of `AudioCorpus`.
    """

    name = "timit"
    example = "TRAIN/DR1/FCJF0/SA1.WAV"
    source = (
        "TIMIT is LDC93S1 of the Linguistic Data Consortium, to be licensed from "
        "https://catalog.ldc.upenn.edu/LDC93S1"
    )

    def __init__(self, root: str | Path, split: str = "vrnn", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        if split not in ("vrnn", "asr"):
            raise ValueError(f"data.split={split} is not one of vrnn, asr")
        if split == "asr" and self.lists is not None:
            raise ValueError("data.lists are in place of data.split=vrnn, not of asr")

        self.split = split

    def identifier(self, path: str) -> str | None:
        match = FILE.fullmatch(path.upper())
        return "/".join(match.groups()) if match else None

    def files(self) -> dict[str, str]:
        files = super().files()
        for folder, count in UTTERANCES.items():
            there = sum(identifier.startswith(folder) for identifier in files)
            if there != count and self.missing == "error":
                raise FileNotFoundError(
                    f"{self.root.absolute()}: the {folder} folder has {there:,} of {count:,} "
                    "utterances; complete the corpus, or go on with what is there by "
                    "data.missing=skip"
                )
        return files

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        names = sorted(files)
        train = [name for name in names if name.startswith("TRAIN")]
        test = [name for name in names if name.startswith("TEST")]
        if self.split == "vrnn":
            train, val = held_back(train, 0.05, self.split_seed)
            return {"train": train, "val": val, "test": test}
        read_by_all = ("SA1", "SA2")
        speaker = {name: name.split("/")[2] for name in names}
        own = [name for name in names if not name.endswith(read_by_all)]
        return {
            "train": [name for name in own if name.startswith("TRAIN")],
            "val": [name for name in own if speaker[name] in DEV],
            "test": [name for name in own if speaker[name] in CORE_TEST],
        }
