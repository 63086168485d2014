"""The table of public checkpoints that have a name here, each file pinned to a commit."""

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class File:
    """One file of a repository at one revision."""

    name: str
    revision: str  # a commit; or a branch, if it is at `commit`
    size: int  # bytes; exact where the sha256 is known, else as the hub's page rounds it
    sha256: str = ""  # "": not known to us
    commit: str = ""  # how the commit begins: the hub's page shortens it


@dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint. safetensors stay as they are; a pickle, .bin, is written anew as model.safetensors."""

    repository: str
    licence: str
    files: tuple[File, ...]
    # The same numbers in several places, of which the first that is there is taken; empty where `files` has them.
    weights: tuple[File, ...] = ()
    command: str = ""  # a use of it, to which `--weights` can be added

    @property
    def megabytes(self) -> int:
        return round(sum(file.size for file in (*self.files, *self.weights[:1])) / MB)


# A pull request's branch (refs/pr/N) may hold safetensors, made by the hub's own converter, that main lacks. A branch
# can be moved, so it is taken at the commit that we know, or not at all.
PARSBERT = "a04aa40c97bcdde570ae11986a534542c2995a62"
ALBERT_FA = "f180b9ec44dbb8260cf7b6c5abd41e5b96bfd412"
DEIT = "f15b75f6aa9b053ba1cf57c6329e55af23e059fd"  # the last to change these files; main has gone on to 3559f91
DEIT_TIMM = "4150668d0839f2da591b2fc5659764c796148243"  # likewise; main has gone on to b53f4f1
E5 = "614241f622f53c4eeff9890bdc4f31cfecc418b3"

CHECKPOINTS = {
    "parsbert": Checkpoint(
        repository="HooshvareLab/bert-fa-base-uncased",
        licence="Apache-2.0",
        files=(File("config.json", PARSBERT, 440), File("vocab.txt", PARSBERT, 1_200_000)),
        weights=(
            File("model.safetensors", "refs/pr/1", 654 * MB, commit="5156f763"),
            File("pytorch_model.bin", PARSBERT, 654 * MB),
        ),
        command="python train_qa.py --recipe parsbert",
    ),
    "albert-fa": Checkpoint(
        repository="m3hrdadfi/albert-fa-base-v2",
        licence="Apache-2.0",
        files=(File("config.json", ALBERT_FA, 684), File("spiece.model", ALBERT_FA, 1_880_000)),
        weights=(File("pytorch_model.bin", ALBERT_FA, 73_100_000),),
        command="python train_qa.py --recipe albert-fa",
    ),
    "deit-small": Checkpoint(
        repository="facebook/deit-small-distilled-patch16-224",
        licence="Apache-2.0",
        files=(File("config.json", DEIT, 69_600), File("preprocessor_config.json", DEIT, 287)),
        weights=(File("pytorch_model.bin", DEIT, 89_800_000),),
        command="python train_vit.py --recipe deit-small",
    ),
    "deit-small-timm": Checkpoint(
        repository="timm/deit_small_distilled_patch16_224.fb_in1k",
        licence="Apache-2.0",
        files=(File("config.json", DEIT_TIMM, 631),),
        weights=(File("model.safetensors", DEIT_TIMM, 89_800_000),),
        command="python train_vit.py --recipe deit-small --weights deit-small-timm",
    ),
    "e5-small": Checkpoint(
        repository="intfloat/multilingual-e5-small",
        licence="MIT",
        files=(
            File("config.json", E5, 655, "69137736cab8b8903a07fe8afaafdda25aac55415a12a55d1bffa9f581abf959"),
            File("tokenizer.json", E5, 17_082_730, "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"),
            File("tokenizer_config.json", E5, 443, "a1d6bc8734a6f635dc158508bef000f8e2e5a759c7d92f984b2c86e5ff53425b"),
        ),
        weights=(
            File(
                "model.safetensors",
                E5,
                470_641_600,
                "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477",
            ),
        ),
        command="python train_qa.py --recipe modern --train pquad --valid pquad --weights e5-small",
    ),
}
