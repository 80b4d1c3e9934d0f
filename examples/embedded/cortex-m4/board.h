/* Arm MPS2 with the FPGA image AN386: a Cortex-M4 with floating point, at 25 MHz. */

#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#define BOARD "Cortex-M4"

/* A register of the first timer of the Cortex-M System Design Kit. */
#define TIMER(offset) (*(volatile uint32_t *)(0x40000000u + (offset)))

/* Coprocessor access control; bits 20 to 23 are those of the floating point unit. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)

/* Turns floating point on and starts the timer: 32 bits, 25 million ticks a second. */
static inline void board_start(void)
{
    CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    TIMER(0x8) = 0xFFFFFFFFu; /* RELOAD */
    TIMER(0x4) = 0xFFFFFFFFu; /* VALUE */
    TIMER(0x0) = 1;           /* CTRL: on */
}

/* Returns the ticks since the start; the timer counts down. */
static inline uint32_t board_ticks(void)
{
    return ~TIMER(0x4);
}

#endif
