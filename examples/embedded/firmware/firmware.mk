# Rules that the firmwares of all boards share. A board's Makefile sets MACHINE, CPU and
# EXPORT, and includes this file.
#
# make qemu   writes the network as C, builds the firmware and runs it on the emulated board
# make size   sizes of all sections of the firmware, and of the network alone: flash holds
#             .text, .rodata and .data; RAM holds .data and .bss, and the stack
# make clean
#
# PYTHON      a Python with aslp-jax
# ASLP        the network
# CFLAGS      -Os is a little smaller, -O3 faster
# MEMORY      linker script
# EMULATION   more arguments of the emulator

PYTHON = python3
ASLP = $(COMMON)/../digits.aslp
PREFIX = arm-none-eabi-
CFLAGS = -O2
STRICT = -std=c99 -Wall -Wextra -Werror
# Functions and constants that nothing uses are left out.
PARTS = -ffunction-sections -fdata-sections
BUILD = build
EMULATION =
MEMORY = memory.ld
# Bytes of RAM that the stack is given at least.
STACK = 1024
EMULATOR = qemu-system-arm -M $(MACHINE) -display none -monitor none -serial none \
           -semihosting-config enable=on,target=native

COMMON := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
COMPILE = $(PREFIX)gcc $(CPU) $(CFLAGS) $(STRICT) $(PARTS) -I. -I$(COMMON) -I$(BUILD)
OBJECTS = $(addprefix $(BUILD)/,startup.o main.o network.o)

LINK = $(PREFIX)gcc $(CPU) -nostartfiles -L$(COMMON)

.PHONY: qemu size clean

qemu: $(BUILD)/firmware.elf $(BUILD)/images.bin
	cd $(BUILD) && $(EMULATOR) $(EMULATION) -kernel firmware.elf

size: $(BUILD)/firmware.elf $(BUILD)/network.elf
	$(PREFIX)size -A $^

clean:
	rm -rf $(BUILD)

$(BUILD)/firmware.elf: $(OBJECTS) $(MEMORY) $(COMMON)/sections.ld
	$(LINK) -Wl,--gc-sections -Wl,--defsym=STACK=$(STACK) -T $(MEMORY) -o $@ $(OBJECTS) -lm

# The network and the functions of libraries that it needs.
$(BUILD)/network.elf: $(BUILD)/network.o $(COMMON)/sections.ld
	$(LINK) -Wl,-e,0 -Wl,--defsym=STACK=0 -T unlimited.ld -o $@ $< -lm

$(BUILD)/startup.o $(BUILD)/main.o: $(BUILD)/%.o: $(COMMON)/%.c $(BUILD)/network.c \
                                    board.h $(COMMON)/host.h $(COMMON)/startup.h
	$(COMPILE) -c $< -o $@

$(BUILD)/network.o: $(BUILD)/network.c
	$(COMPILE) -c $< -o $@

# Writes network.h beside it.
$(BUILD)/network.c: $(ASLP)
	mkdir -p $(BUILD)
	$(PYTHON) -m aslp_jax export $(ASLP) --to c $(EXPORT) -o $@

$(BUILD)/images.bin: $(COMMON)/images.py
	mkdir -p $(BUILD)
	$(PYTHON) $< $@
