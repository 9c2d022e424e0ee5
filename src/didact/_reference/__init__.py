"""What others measured and what is known exactly, each with its origin: data of the package.

`values.toml` is the data; `references` and `notes` read it.
"""

from ._read import KINDS as KINDS
from ._read import Reference as Reference
from ._read import notes as notes
from ._read import references as references
