"""Emulated boards: firmware of an exported network, its size, and what it computes.

The firmware is that of `examples/embedded`. The emulator takes the same time for every
instruction, so that the ticks of the board's timer count instructions.
"""

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = [
    "BOARDS",
    "CORTEX_M4",
    "EXTERNAL",
    "M0_STAND_IN",
    "MICROBIT",
    "Board",
    "Firmware",
    "Outcome",
    "Sizes",
    "build",
    "inputs_of",
    "missing_tools",
    "outputs_of",
    "run",
]

EXAMPLES = Path(__file__).parents[1] / "examples" / "embedded"

INSTRUCTION = 6
"""Base-2 logarithm of the nanoseconds of an instruction, unless more is asked for."""


@dataclasses.dataclass(frozen=True)
class Board:
    """A board that the emulator has.

    Attributes:
      name: name in tables.
      folder: folder in `examples/embedded`.
      flash: bytes of memory for code and constants.
      ram: bytes of memory for data.
      hertz: ticks of the timer in a second.
      variables: variables of `make` that differ from those of the folder.
    """

    name: str
    folder: str
    flash: int
    ram: int
    hertz: int
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


MICROBIT = Board("microbit", "microbit", 256 * 1024, 16 * 1024, 16_000_000)
CORTEX_M4 = Board("cortex-m4", "cortex-m4", 4 << 20, 4 << 20, 25_000_000)
BOARDS = {board.name: board for board in (MICROBIT, CORTEX_M4)}

EXTERNAL = dataclasses.replace(
    CORTEX_M4,
    name="cortex-m4, external memory",
    flash=16 << 20,
    variables={"MEMORY": "external.ld"},
)
"""The Cortex-M4 with the weights in memory outside of the chip."""

M0_STAND_IN = dataclasses.replace(
    EXTERNAL,
    name="cortex-m4, external memory, code for Cortex-M0",
    variables={**EXTERNAL.variables, "CPU": "-mcpu=cortex-m0 -mthumb"},
)
"""A board with the memory of the Cortex-M4's that runs the code of a Cortex-M0."""


class Sizes(NamedTuple):
    """Bytes of memory, as the linker lays them out.

    Attributes:
      flash: code, constants and initial values.
      ram: static data, without the stack.
    """

    flash: int
    ram: int

    def fit(self, board: Board, stack: int = 1024) -> bool:
        """Returns True if a board has enough memory, beside a stack."""
        return self.flash <= board.flash and self.ram + stack <= board.ram


class Firmware(NamedTuple):
    """A firmware in a folder.

    Attributes:
      board: board that it is for.
      folder: folder of the object files and of the network's source.
      whole: sizes of everything on the board.
      network: sizes of the network alone, with functions of libraries that it needs.
      flags: optimisation of the compiler.
    """

    board: Board
    folder: Path
    whole: Sizes
    network: Sizes
    flags: str


class Outcome(NamedTuple):
    """Results of a firmware, image by image.

    Attributes:
      logits: outputs `[images, classes]`, floats or integers.
      instructions: instructions of each image `[images]`, int64; among them the call
        and two reads of the timer, some ten.
      text: what the firmware printed.
      stack: largest number of bytes on the stack.
      network_stack: part of it that the network took.
    """

    logits: np.ndarray
    instructions: np.ndarray
    text: str
    stack: int
    network_stack: int


def missing_tools(*names: str) -> str:
    """Returns a sentence about programs that are not installed, empty if all are."""
    missing = [name for name in names if shutil.which(name) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def build(
    folder: Path, board: Board, flags: str = "-O2", *, network_again: bool = True
) -> Firmware:
    """Builds the firmware of the `network.c` and `network.h` in a folder.

    A firmware that does not fit the board is linked all the same, to tell its size.

    Args:
      folder: folder of the sources; gets all other files.
      board: board to build for.
      flags: optimisation of the compiler.
      network_again: False if `network.o` is there, for the same processor and with the
        same flags.

    Raises:
      RuntimeError: the compiler or the linker failed; the message is theirs.
    """
    folder = folder.resolve()
    for old in (*folder.glob("*.o"), *folder.glob("*.elf")):
        if network_again or old.name != "network.o":
            old.unlink()
    unlimited = "../firmware/unlimited.ld"
    sizes = {}
    for name in ("firmware", "network"):
        elf = folder / f"{name}.elf"
        _make(board, folder, flags, str(elf), MEMORY=unlimited)
        sizes[name] = _sizes(elf)
    if sizes["firmware"].fit(board):
        (folder / "firmware.elf").unlink()
        _make(board, folder, flags, str(folder / "firmware.elf"))
    return Firmware(board, folder, sizes["firmware"], sizes["network"], flags)


def run(
    firmware: Firmware,
    inputs: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    instruction: int = INSTRUCTION,
) -> Outcome:
    """Runs a firmware on its emulated board.

    Args:
      firmware: one that fits its board.
      inputs: images uint8, or other inputs as `inputs_of` says, `[images, ...]`.
      labels: class of each image `[images]`; None if nobody knows.
      instruction: base-2 logarithm of the nanoseconds that the emulator takes for an
        instruction, from 0 to 6. At 6 the timer, of 32 bits, counts each of the
        instructions up to 2.7 thousand million an image; each step down doubles this
        number and the error.

    Raises:
      RuntimeError: the firmware failed; the message is its own.
      ValueError: the board has too little memory.
    """
    board, whole = firmware.board, firmware.whole
    if not whole.fit(board):
        raise ValueError(
            f"run: {board.name} has {board.flash:,} bytes of flash and {board.ram:,} "
            f"of RAM; the firmware needs {whole.flash:,} and {whole.ram:,}, and a stack"
        )
    count = len(inputs)
    record = np.dtype(
        [("numbers", inputs.dtype.newbyteorder("<"), inputs[0].size), ("label", "u1")],
        align=True,
    )
    records = np.zeros(count, record)
    records["numbers"] = inputs.reshape(count, -1)
    records["label"] = 255 if labels is None else labels
    (firmware.folder / "images.bin").write_bytes(records.tobytes())
    emulation = f"-icount shift={instruction},align=off,sleep=off"
    text = _make(board, firmware.folder, firmware.flags, "qemu", EMULATION=emulation)
    number, outputs = outputs_of(firmware.folder / "network.h")
    result = np.dtype(
        [("ticks", "<u4"), ("logits", number.newbyteorder("<"), outputs)], align=True
    )
    results = np.fromfile(firmware.folder / "results.bin", result)
    nanoseconds = results["ticks"].astype(np.float64) * 1e9 / board.hertz
    sizes = re.search(r"stack: (\d+) bytes, of which the network takes (\d+)", text)
    if sizes is None or len(results) != count:
        raise RuntimeError(f"run: no results from {board.name}: {text}")
    return Outcome(
        results["logits"],
        np.rint(nanoseconds / 2**instruction).astype(np.int64),
        text,
        *map(int, sizes.groups()),
    )


def outputs_of(header: Path) -> tuple[np.dtype, int]:
    """Returns dtype and number of the outputs of a network, from its header.

    Raises:
      RuntimeError: the header does not say.
    """
    text = header.read_text()
    number = re.search(rf"^typedef {_NUMBERS} \w+_(logit|output);", text, re.M)
    count = re.search(r"^#define \w+_(CLASSES|OUTPUTS) (\d+)$", text, re.M)
    if number is None or count is None:
        raise RuntimeError(f"outputs_of: {header} does not say what its network gives")
    return _dtype(number[1]), int(count[2])


def inputs_of(header: Path) -> tuple[np.dtype, float]:
    """Returns dtype of the inputs of a network, and the real number that 1 stands for.

    Bytes and floats are taken as they are, at 1.
    """
    form = (
        r"/\* A number of the input(?:, of which 1 stands for (\S+))?\. \*/\ntypedef "
    )
    found = re.search(form + rf"{_NUMBERS} \w+_input;", header.read_text())
    if found is None:
        return np.dtype("u1"), 1.0
    return _dtype(found[2]), float(found[1] or 1)


_NUMBERS = r"(float|u?int(?:8|16)_t)"


def _dtype(number: str) -> np.dtype:
    """Returns the dtype of a type of C."""
    return np.dtype("f4" if number == "float" else number.removesuffix("_t"))


def _make(board: Board, folder: Path, flags: str, target: str, **variables: str) -> str:
    """Runs `make` in the folder of a board and returns what it printed."""
    given = {
        "BUILD": str(folder),
        "ASLP": "",  # the source is there
        "CFLAGS": flags,
        **board.variables,
        **variables,
    }
    command = ["make", "-s", "-C", str(EXAMPLES / board.folder), target]
    command += [f"{name}={value}" for name, value in given.items()]
    # The emulator prints the firmware's text on the second stream.
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"make {target}: {done.stdout.strip()}")
    return done.stdout


def _sizes(elf: Path) -> Sizes:
    """Returns the sizes of a linked program."""
    listed = subprocess.run(
        ["arm-none-eabi-size", "-A", str(elf)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = dict(re.findall(r"^(\.\w+) +(\d+)", listed, re.M))
    flash, ram = (
        sum(int(found.get(name, 0)) for name in names)
        for names in ((".text", ".rodata", ".data"), (".data", ".bss"))
    )
    return Sizes(flash, ram)
