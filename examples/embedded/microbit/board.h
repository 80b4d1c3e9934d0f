/* BBC micro:bit: nRF51822, a Cortex-M0 at 16 MHz. */

#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#define BOARD "micro:bit"

/* A register of TIMER0; its reference manual has the offsets. */
#define TIMER(offset) (*(volatile uint32_t *)(0x40008000u + (offset)))

/* Starts the timer: 32 bits, 16 million ticks a second. */
static inline void board_start(void)
{
    TIMER(0x508) = 3; /* BITMODE */
    TIMER(0x510) = 0; /* PRESCALER */
    TIMER(0x000) = 1; /* START */
}

/* Returns the ticks since the start. */
static inline uint32_t board_ticks(void)
{
    TIMER(0x040) = 1;    /* CAPTURE[0] */
    return TIMER(0x540); /* CC[0] */
}

#endif
