"""A compiled program file, in plain JSON: instructions with maps by name, and what each map is."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

from streams.schema.errors import KernelError

_LD_IMM64, _PSEUDO_MAP_FD = 0x18, 1


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What a map is created from."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """Instructions (8 bytes each), {index of a 16-byte load: map name}, and the BTF id to attach to (0: none)."""

    instructions: bytes
    relocations: dict[int, str]
    attach_btf_id: int = 0

    def linked(self, descriptors: dict[str, int]) -> bytes:
        """Return the instructions with the maps' descriptors filled in."""
        code = bytearray(self.instructions)
        for index, name in self.relocations.items():
            struct.pack_into("<i", code, index * 8 + 4, descriptors[name])
        return bytes(code)


@dataclass(frozen=True, slots=True)
class Object:
    """All programs and maps of one source file."""

    programs: dict[str, ProgramSpec]
    maps: dict[str, MapSpec]

    def write(self, path: Path) -> None:
        """Write it in one step."""
        document = {
            "maps": {name: asdict(spec) for name, spec in self.maps.items()},
            "programs": {
                name: {
                    "instructions": base64.b64encode(spec.instructions).decode(),
                    "relocations": {str(index): target for index, target in spec.relocations.items()},
                    "attach_btf_id": spec.attach_btf_id,
                }
                for name, spec in self.programs.items()
            },
        }
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Object:
        """Read a file that ``write`` wrote.

        Raises:
            KernelError: it is not one.
        """
        try:
            document = json.loads(path.read_text())
            return cls(
                programs={
                    name: ProgramSpec(
                        base64.b64decode(spec["instructions"]),
                        {int(index): target for index, target in spec["relocations"].items()},
                        spec["attach_btf_id"],
                    )
                    for name, spec in document["programs"].items()
                },
                maps={name: MapSpec(**spec) for name, spec in document["maps"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KernelError(f"{path} is not a compiled BPF object: {error}; delete it") from error


def relocations(instructions: bytes, names: dict[int, str]) -> dict[int, str]:
    """Return {instruction index: map name} of every load of a map descriptor."""
    found = {}
    for index in range(len(instructions) // 8):
        code, registers, _offset, immediate = struct.unpack_from("<BBhi", instructions, index * 8)
        if code == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
            found[index] = names[immediate]
    return found
