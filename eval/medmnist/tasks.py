"""The twelve 2-D MedMNIST tasks as their authors publish them (MedMNIST v2, Yang et al., 2023): a table, no code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["binary-class", "multi-class", "multi-label, binary-class", "ordinal-regression"]
"""MedMNIST's own names of the four kinds of task."""

BINARY: Final = "binary-class"
MULTI_CLASS: Final = "multi-class"
MULTI_LABEL: Final = "multi-label, binary-class"
ORDINAL: Final = "ordinal-regression"

IMAGE_SIZES_PX: Final = (28, 64, 128, 224)
"""The sizes in which each task is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """What is known of a task before its images are read.

    Attributes:
        name: MedMNIST's flag, e.g. `breastmnist`.
        title: The name in print, e.g. `BreastMNIST`.
        kind: One of MedMNIST's four kinds.
        channels: 1 (grey) or 3 (RGB).
        num_train: Images of the training split.
        num_val: Images of the validation split.
        num_test: Images of the test split.
        class_names: One name a class, or a label in multi-label tasks.
        licence: Licence of the images.
    """

    name: str
    title: str
    kind: Kind
    channels: int
    num_train: int
    num_val: int
    num_test: int
    class_names: tuple[str, ...]
    licence: str = "CC BY 4.0"

    @property
    def num_samples(self) -> int:
        """Images of all three splits."""
        return self.num_train + self.num_val + self.num_test

    @property
    def num_classes(self) -> int:
        """Classes, or labels in multi-label tasks."""
        return len(self.class_names)


_ORGANS: Final = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

_ALL: Final = (
    TaskInfo(
        name="pathmnist",
        title="PathMNIST",
        kind=MULTI_CLASS,
        channels=3,
        num_train=89_996,
        num_val=10_004,
        num_test=7_180,
        class_names=(
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    TaskInfo(
        name="chestmnist",
        title="ChestMNIST",
        kind=MULTI_LABEL,
        channels=1,
        num_train=78_468,
        num_val=11_219,
        num_test=22_433,
        class_names=(
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
    ),
    TaskInfo(
        name="dermamnist",
        title="DermaMNIST",
        kind=MULTI_CLASS,
        channels=3,
        num_train=7_007,
        num_val=1_003,
        num_test=2_005,
        class_names=(
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        licence="CC BY-NC 4.0",
    ),
    TaskInfo(
        name="octmnist",
        title="OCTMNIST",
        kind=MULTI_CLASS,
        channels=1,
        num_train=97_477,
        num_val=10_832,
        num_test=1_000,
        class_names=(
            "choroidal neovascularization",
            "diabetic macular edema",
            "drusen",
            "normal",
        ),
    ),
    TaskInfo(
        name="pneumoniamnist",
        title="PneumoniaMNIST",
        kind=BINARY,
        channels=1,
        num_train=4_708,
        num_val=524,
        num_test=624,
        class_names=(
            "normal",
            "pneumonia",
        ),
    ),
    TaskInfo(
        name="retinamnist",
        title="RetinaMNIST",
        kind=ORDINAL,
        channels=3,
        num_train=1_080,
        num_val=120,
        num_test=400,
        class_names=(
            "0",
            "1",
            "2",
            "3",
            "4",
        ),
    ),
    TaskInfo(
        name="breastmnist",
        title="BreastMNIST",
        kind=BINARY,
        channels=1,
        num_train=546,
        num_val=78,
        num_test=156,
        class_names=(
            "malignant",
            "normal, benign",
        ),
    ),
    TaskInfo(
        name="bloodmnist",
        title="BloodMNIST",
        kind=MULTI_CLASS,
        channels=3,
        num_train=11_959,
        num_val=1_712,
        num_test=3_421,
        class_names=(
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    TaskInfo(
        name="tissuemnist",
        title="TissueMNIST",
        kind=MULTI_CLASS,
        channels=1,
        num_train=165_466,
        num_val=23_640,
        num_test=47_280,
        class_names=(
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
    ),
    TaskInfo(
        name="organamnist",
        title="OrganAMNIST",
        kind=MULTI_CLASS,
        channels=1,
        num_train=34_561,
        num_val=6_491,
        num_test=17_778,
        class_names=_ORGANS,
    ),
    TaskInfo(
        name="organcmnist",
        title="OrganCMNIST",
        kind=MULTI_CLASS,
        channels=1,
        num_train=12_975,
        num_val=2_392,
        num_test=8_216,
        class_names=_ORGANS,
    ),
    TaskInfo(
        name="organsmnist",
        title="OrganSMNIST",
        kind=MULTI_CLASS,
        channels=1,
        num_train=13_932,
        num_val=2_452,
        num_test=8_827,
        class_names=_ORGANS,
    ),
)

TASKS: Final[dict[str, TaskInfo]] = {info.name: info for info in _ALL}
"""Flag → task, in the order of MedMNIST's own table."""
